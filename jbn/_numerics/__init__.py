"""Arrays, types, shapes, meshes and sums: what the formulas of batch norm stand on."""

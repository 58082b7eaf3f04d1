"""Studies over `jbn`: train networks with and without batch norm, measure, and report."""

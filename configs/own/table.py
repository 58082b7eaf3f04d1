"""A table of one's own: three classes, 20 features, a residual network, five norms.

Claim    Some norm helps a residual network on this table.
Command  python -m experiments run configs/own/table.py --out runs/table
Cost     Depends on the data, of which there is none here.
Result   None: it is a pattern for data of one's own.
"""

import flax.linen as nn

from experiments.study import AdamW, Csv, DynamicTanh, Norm, Standard, Study


class ResidualMLP(nn.Module):
    norm: Norm
    outputs: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(64)(x)
        for i in range(1, 4):
            x = x + nn.Dense(64)(nn.relu(self.norm(f"norm_{i}")(x)))
        return nn.Dense(self.outputs)(x)


study = Study(
    name="Residual network on a table", claim="Some norm helps a residual network on this table.",
    data=Csv("table.csv", target="label", validation=0.15, test=0.15, standardize=True),
    network=ResidualMLP,
    norms={"none": None, "batch": Standard(), "layer": nn.LayerNorm(), "RMS": nn.RMSNorm(),
           "dynamic tanh": DynamicTanh()},
    optimizer=AdamW(weight_decay=0.01), warmup=50, schedule="cosine", learning_rates=(1e-3, 1e-2),
    seeds=(0, 1, 2), batch_size=64, steps=500, evaluate_every=50,
)  # fmt: skip

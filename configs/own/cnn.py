"""A convolutional network on 8x8 digits: batch norm against group norm.

Claim    Batch norm trains a small convolutional network faster than group norm.
Command  python -m experiments run configs/own/cnn.py --out runs/cnn
Cost     2 min 44 s of processor time, all cores together, compiling and the report included.
Result   Seeds 0 to 2, 300 steps, each best at rate 0.1: batch norm ends at 97.6 % (95.9 to 99.3),
         group norm at 94.0 (89.1 to 98.9), none at 91.9 (88.1 to 95.7). Batch norm is 5.7 points
         above none (3.5 to 8.0), group norm level with it (-4.3 to +8.5). All three runs of batch
         norm reach 95 %, at step 117, two of group norm, and none of none.
"""

import flax.linen as nn

from experiments.study import SGD, Digits, GroupNorm, Norm, Standard, Study


class CNN(nn.Module):
    norm: Norm
    outputs: int

    @nn.compact
    def __call__(self, x):
        for i, features in enumerate((16, 32), start=1):
            x = nn.Conv(features, (3, 3), strides=i, use_bias=not self.norm.has_bias)(x)
            x = nn.relu(self.norm(f"norm_{i}")(x))
        return nn.Dense(self.outputs)(x.mean((1, 2)))


study = Study(
    name="CNN on digits", claim="Batch norm trains a small CNN faster than group norm.",
    data=Digits(validation=0.15), network=CNN,
    norms={"none": None, "batch": Standard(), "group": GroupNorm(4)}, optimizer=SGD(momentum=0.9),
    learning_rates=(0.01, 0.1), seeds=(0, 1, 2), batch_size=64, steps=300, evaluate_every=50,
)  # fmt: skip

"""A residual network on MNIST: does a norm help where identities already carry the gradient?

Claim    Batch norm trains a residual network on MNIST faster than layer norm or none.
Command  python -m experiments run configs/mnist_residual.py --out runs/mnist_residual
Cost     Not measured yet.
Result   Not measured yet.
"""

import flax.linen as nn

from experiments.study import SGD, LayerNorm, Mnist, Norm, Standard, Study


class ResidualMLP(nn.Module):
    """Blocks of norm, ReLU and Dense twice, added to what goes in."""

    norm: Norm
    outputs: int
    width: int = 100
    blocks: int = 3

    @nn.compact
    def __call__(self, x):
        """Class scores of images of any shape."""
        x = nn.Dense(self.width, name="input")(x.reshape(x.shape[0], -1))
        for block in range(1, self.blocks + 1):
            y = x
            for i in (1, 2):
                y = nn.relu(self.norm(f"norm_{block}_{i}")(y))
                y = nn.Dense(self.width, name=f"dense_{block}_{i}")(y)
            x = x + y
        return nn.Dense(self.outputs, name="output")(x)


study = Study(
    name="Residual network on MNIST",
    claim="Batch norm trains a residual network on MNIST faster than layer norm or none.",
    data=Mnist(validation=0.1),
    network=ResidualMLP,
    norms={"no norm": None, "batch norm": Standard(), "layer norm": LayerNorm()},
    optimizer=SGD(momentum=0.9),
    learning_rates=(0.003, 0.01, 0.03, 0.1),
    seeds=(0, 1, 2),
    batch_size=64,
    steps=1000,
    evaluate_every=100,
)

"""Ioffe & Szegedy (2015), section 4.1, on MNIST: does batch norm train faster?

Claim    With batch norm the three-layer sigmoid network trains faster and ends more accurate.
Command  python -m experiments run configs/mnist.py --out runs/mnist
Cost     minutes on two cores; not yet measured with these numbers.
Result   not yet measured.
"""

from experiments.config import Study
from jbn import Standard

study = Study(
    name="Sigmoid MLP on MNIST",
    claim="With batch norm the three-layer sigmoid network trains faster and ends more accurate.",
    data="mnist",
    norms={"no norm": None, "batch norm": Standard()},
    widths=(100, 100, 100),
    activation="sigmoid",
    # The paper says "small random Gaussian values" and neither this number nor the learning rate.
    init_std=0.1,
    optimizer="sgd",
    # Half-decades from where nothing moves to where nothing holds.
    learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    seeds=(0, 1, 2, 3, 4),
    batch_size=60,
    steps=5000,
    evaluate_every=250,
)

"""Ioffe & Szegedy (2015), figure 1: three sigmoid layers on black-and-white MNIST, at full length.

Claim    With batch norm the network trains faster and ends more accurate, and the distribution of
         its last sigmoid's inputs keeps its scale while it trains.
Command  python -m experiments run configs/papers/ioffe_2015.py --out runs/ioffe_2015
         A worse beginning: --init-std 0.01 --learning-rates 0.5 --out runs/ioffe_2015_small
Cost     not yet measured.
Result   not yet measured.
"""

from experiments.config import Study
from jbn import Standard

study = Study(
    name="Figure 1 of Ioffe & Szegedy",
    claim="With batch norm the three-layer sigmoid network trains faster and ends more accurate.",
    data="binary-mnist",
    norms={"no norm": None, "batch norm": Standard()},
    widths=(100, 100, 100),
    activation="sigmoid",
    # The paper gives neither of these two numbers.
    init_std=0.1,
    learning_rates=(0.1,),
    optimizer="sgd",
    seeds=(0, 1, 2),
    batch_size=60,
    steps=50_000,
    evaluate_every=1000,
)

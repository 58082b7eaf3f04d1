"""Santurkar et al. (2018), section 2.1: batch norm with its distributions made unstable by noise.

Claim    Noise after batch norm, fresh at each step, undoes the stability of its outputs and not its
         benefit: the network still trains better than one without batch norm.
Command  python -m experiments run configs/papers/santurkar_2018.py --out runs/santurkar_2018
Cost     81 seconds on two x86 cores.
Result   Seeds 0 to 2, each network at its best rate: 97.8 % (96.6 to 99.0) with noise after batch
         norm, 97.1 (95.7 to 98.6) with batch norm, 96.3 (95.5 to 97.1) without; noise costs nothing
         that three seeds can tell. At rate 0.3 only the two with batch norm hold in every run.
"""

import jax

from experiments.study import MLP, Digits, Study
from jbn import Noisy, Standard

study = Study(
    name="Noise after batch norm",
    claim="Noise after batch norm does not undo its benefit.",
    data=Digits(validation=0),
    norms={
        "no norm": None,
        "batch norm": Standard(),
        "batch norm and noise": Noisy(jax.random.key(0)),
    },
    network=MLP((100,) * 10, "relu"),
    optimizer="sgd",
    learning_rates=(0.01, 0.03, 0.1, 0.3),
    seeds=(0, 1, 2),
    batch_size=128,
    steps=500,
    evaluate_every=25,
)

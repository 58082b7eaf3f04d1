"""Hoffer et al. (2017), Train longer, generalize better: ghost batches inside a large one.

Claim    Statistics of small groups close the generalisation gap of large batches.
Command  python -m experiments run configs/papers/hoffer_2017.py --out runs/hoffer_2017
Cost     two minutes on two x86 cores, with other work beside.
Result   Seeds 0 to 2, all best at rate 1.6: 97.9 % (97.9 to 98.0) with the batch's statistics, 98.0
         (97.6 to 98.5) in groups of 128, 98.0 (97.7 to 98.3) of 16. No difference can be told.
"""

from experiments.study import MLP, Mnist, Study
from jbn import Ghost, Standard

study = Study(
    name="Ghost batches",
    claim="Statistics of small groups close the generalisation gap of large batches.",
    data=Mnist(validation=0),
    norms={
        "batch norm": Standard(),
        "groups of 128": Ghost(128),
        "groups of 16": Ghost(16),
    },
    network=MLP((128, 128), "relu"),
    optimizer="sgd",
    learning_rates=(0.1, 0.4, 1.6),
    seeds=(0, 1, 2),
    batch_size=1024,
    steps=600,
    evaluate_every=50,
)

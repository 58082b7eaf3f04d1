"""Ioffe (2017), Batch Renormalization: batches of four.

Claim    With tiny batches renormalisation loses less than batch norm does.
Command  python -m experiments run configs/papers/ioffe_2017.py --out runs/ioffe_2017
Cost     half a minute on two x86 cores, with other work beside.
Result   Seeds 0 to 2, each at its best rate, 0.03: 93.5 % (92.6 to 94.5) with renormalisation, 92.1
         (91.3 to 92.9) with batch norm, 93.4 (90.8 to 96.0) without. 90 % takes 1000 steps with
         renormalisation, 2500 with batch norm, 1167 without: it undoes the loss, and adds nothing.
"""

from experiments.study import MLP, Mnist, Study
from jbn import Renorm, Standard

study = Study(
    name="Batches of four",
    claim="With tiny batches renormalisation loses less than batch norm does.",
    data=Mnist(validation=0),
    # From the start, so d is given less room than the paper's 5, which it reaches late.
    norms={
        "no norm": None,
        "batch norm": Standard(),
        "renorm": Renorm(r_max=3.0, d_max=1.0),
    },
    network=MLP((100, 100), "relu"),
    optimizer="sgd",
    learning_rates=(0.01, 0.03, 0.1),
    seeds=(0, 1, 2),
    batch_size=4,
    steps=5000,
    evaluate_every=250,
)

"""Yang et al. (2019), A mean field theory of batch norm: epsilon against exploding gradients.

Claim    A larger epsilon lowers the explosion of gradients in deep networks with batch norm, and
         does not remove it (figure 4).
Command  python -m experiments run configs/papers/yang_2019.py --out runs/yang_2019
Cost     66 seconds on two x86 cores.
Result   Seeds 0 to 2, steps 1 to 20 at rate 0.001: from a layer to the one below it the gradient
         grows 1.222 times (1.210 to 1.234) at epsilon 1e-5, 1.215 at 0.1, 1.192 at 1, 1.124 (1.110
         to 1.137) at 10, and 1.017 (0.948 to 1.086) without batch norm; theory has the root of
         1.493, 1.222, at epsilon 0 and batches of 64. It does not help: at its best rate the
         network ends at 95 to 96 % for epsilons up to 1, and at 10 it learns nothing.
"""

from experiments.study import MLP, Digits, Study
from jbn import Standard

study = Study(
    name="Epsilon against explosion",
    claim="A larger epsilon lowers the explosion of gradients, and does not remove it.",
    data=Digits(validation=0),
    norms={"no norm": None, "batch norm": Standard()},
    network=MLP((100,) * 20, "relu"),
    # One program for all: pre-activations have a variance of about 1 before they are normalised.
    epsilon=(1e-5, 1e-3, 0.1, 1.0, 10.0),
    optimizer="sgd",
    learning_rates=(0.001, 0.01, 0.1),
    seeds=(0, 1, 2),
    batch_size=60,
    steps=400,
    evaluate_every=20,
)

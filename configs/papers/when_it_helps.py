"""Does batch norm help? A map over depth, learning rate and batch size.

Claim    It depends: on the depth of the network, the learning rate and the batch size.
Command  python -m experiments run configs/papers/when_it_helps.py --out runs/when_it_helps
Cost     not yet measured.
Result   not yet measured.
"""

from experiments.config import Study
from jbn import Standard

studies = {
    f"{depth} layers, batch {batch_size}": Study(
        name=f"{depth} hidden layers, batches of {batch_size}",
        claim="Whether batch norm helps depends on depth, learning rate and batch size.",
        data="digits",
        norms={"no norm": None, "batch norm": Standard()},
        widths=(64,) * depth,
        activation="relu",
        optimizer="sgd",
        learning_rates=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        seeds=(0, 1, 2),
        batch_size=batch_size,
        steps=400,
        evaluate_every=40,
    )
    for depth in (1, 3, 10)
    for batch_size in (4, 16, 128)
}

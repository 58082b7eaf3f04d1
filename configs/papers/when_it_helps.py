"""Does batch norm help? A map over depth, learning rate and batch size.

Claim    It depends: on the depth of the network, the learning rate and the batch size.
Command  python -m experiments run configs/papers/when_it_helps.py --out runs/when_it_helps
Cost     three minutes on two x86 cores.
Result   Points of test accuracy that batch norm adds, mean of seeds 0 to 2, each at its best
         rate: -0.1, 1.1, 3.1 with 1 layer and batches of 128, 16, 4; 0.7, 0.7, -1.4 with 3; 1.1,
         7.9, -27.4 with 10. At the same rate it adds 76 to 88 where the other no longer trains
         (rate 1 from 3 layers on, batches of 16 and 128), and costs 13 to 33 with 10 layers at
         rate 0.003.
"""

from experiments.study import MLP, Digits, Study
from jbn import Standard

studies = {
    f"{depth} layers, batch {batch_size}": Study(
        name=f"{depth} hidden layers, batches of {batch_size}",
        claim="Whether batch norm helps depends on depth, learning rate and batch size.",
        data=Digits(validation=0),
        norms={"no norm": None, "batch norm": Standard()},
        network=MLP((64,) * depth, "relu"),
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

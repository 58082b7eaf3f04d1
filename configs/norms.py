"""Seven norms in one place: what do they do for a sigmoid network on scikit-learn's digits?

Claim    Any norm before the sigmoids trains the network faster than none.
Command  python -m experiments run configs/norms.py --out runs/norms
Cost     TODO
Result   TODO
"""

from experiments.study import (
    MLP,
    DynamicTanh,
    GroupNorm,
    LayerNorm,
    RMSNorm,
    Standard,
    Study,
    WeightNorm,
)

study = Study(
    name="Seven norms on digits",
    claim="Any norm before the sigmoids trains the network faster than none.",
    data="digits",
    norms={
        "no norm": None,
        "batch norm": Standard(),
        "layer norm": LayerNorm(),
        "RMS norm": RMSNorm(),
        "group norm": GroupNorm(10),
        "weight norm": WeightNorm(),
        "dynamic tanh": DynamicTanh(),
    },
    network=MLP((100, 100, 100), "sigmoid"),
    optimizer="sgd",
    learning_rates=(0.1, 0.3, 1.0, 3.0),
    seeds=(0, 1, 2),
    batch_size=60,
    steps=1000,
    evaluate_every=20,
)

"""A regression of one's own, from arrays in a file: does layer norm explain more?

Claim    A norm explains more of the target's variance than none.
Command  python -m experiments run configs/own/regression.py --out runs/regression
Cost     Depends on the data, of which there is none here.
Result   None: it is a pattern for data of one's own.
"""

from experiments.study import MLP, LayerNorm, Npz, Regression, Standard, Study

study = Study(
    name="Regression",
    claim="A norm explains more of the target's variance than none.",
    data=Npz("regression.npz", validation=0.15, test=0.15, standardize=True),
    task=Regression(),
    network=MLP((32, 32), "relu"),
    norms={"none": None, "batch": Standard(), "layer": LayerNorm()},
    optimizer="adam",
    learning_rates=(1e-3, 1e-2),
    seeds=(0, 1, 2),
    batch_size=32,
    steps=500,
    evaluate_every=50,
)

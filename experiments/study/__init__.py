"""A study and its values, for configs: `from experiments.study import Study, Digits, MLP, SGD`.

Import it where devices are settled already, as they are when a config is read: it imports JAX.
"""

from flax.linen import GroupNorm, InstanceNorm, LayerNorm, RMSNorm

from experiments.study.config import Study
from experiments.study.datasets import Arrays, Csv, Digits, Mnist, Npz
from experiments.study.networks import MLP
from experiments.study.norms import DynamicTanh, Norm, WeightNorm
from experiments.study.optimizers import SGD, Adam, AdamW
from experiments.study.tasks import Classification, Objective, Regression
from jbn import (
    Detached,
    Ghost,
    Noisy,
    Renorm,
    Running,
    Standard,
    Uncentered,
)

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "Arrays",
    "Classification",
    "Csv",
    "Detached",
    "Digits",
    "DynamicTanh",
    "Ghost",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Mnist",
    "Noisy",
    "Norm",
    "Npz",
    "Objective",
    "RMSNorm",
    "Regression",
    "Renorm",
    "Running",
    "Standard",
    "Study",
    "Uncentered",
    "WeightNorm",
]

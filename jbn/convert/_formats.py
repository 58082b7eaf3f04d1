"""Names and layouts of a layer's arrays in each framework."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Format(NamedTuple):
    """Names and layouts that a framework gives the arrays of a layer.

    Three tables give the framework's names for Flax's: in a norm, in a Dense or Conv, and in an
    embedding.

    Attributes:
      framework: its name, for messages.
      separator: between the parts of a path.
      norm, kernel, embedding: the tables.
      spare: arrays of a batch norm beside the four of its table, which nothing here needs.
      nested: pattern of the modules inside a norm that hold some of its arrays. They count as part
        of the array's name.
      collections: whether keys begin with a collection. It counts as part of the array's name:
        "params/Dense_0/kernel" is the array "params/kernel" of the layer "Dense_0".
      stacks: whether layers may have leading axes, as `nn.vmap` and `nn.scan` make them.
      squeeze: whether the vectors of a norm have axes of length one before their own.
      outputs_first: whether kernels have shape (O, I, *window), where Flax's have (*window, I, O).
      depthwise: whether depthwise kernels have shape (*window, I, M), where Flax's have
        (*window, 1, I * M).
    """

    framework: str
    separator: str
    norm: Mapping[str, str]
    kernel: Mapping[str, str]
    embedding: Mapping[str, str]
    spare: tuple[str, ...] = ()
    nested: str = ""
    collections: bool = False
    stacks: bool = False
    squeeze: bool = False
    outputs_first: bool = False
    depthwise: bool = False

    def split(self, keys: tuple[Any, ...]) -> tuple[str, str]:
        """Returns the path of the layer and the name of its array to which `keys` lead."""
        collection, *rest = map(str, keys) if self.collections else ("", *map(str, keys))
        key = self.separator.join(rest)
        above = re.split(rf"(?:{self.nested})?[^{self.separator}]*\Z", key, maxsplit=1)[0]
        path, name = above.removesuffix(self.separator), key[len(above) :]
        return path, f"{collection}/{name}" if self.collections else name

    def join(self, path: str, name: str) -> str:
        """Returns the whole key of an array, which `split` takes apart."""
        collection, _, last = name.rpartition("/") if self.collections else ("", "", name)
        return self.separator.join(part for part in (collection, path, last) if part)


TORCH = Format(
    "PyTorch",
    ".",
    norm={"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
    kernel={"kernel": "weight", "bias": "bias"},
    embedding={"embedding": "weight"},
    spare=("num_batches_tracked",),
    outputs_first=True,
)
LINEN = Format(
    "Linen",
    "/",
    norm={
        "scale": "params/scale",
        "bias": "params/bias",
        "mean": "batch_stats/mean",
        "var": "batch_stats/var",
    },
    kernel={"kernel": "params/kernel", "bias": "params/bias"},
    embedding={"embedding": "params/embedding"},
    collections=True,
    stacks=True,
)
NNX = Format(
    "NNX",
    "/",
    norm={"scale": "scale", "bias": "bias", "mean": "mean", "var": "var"},
    kernel={"kernel": "kernel", "bias": "bias"},
    embedding={"embedding": "embedding"},
    stacks=True,
)
KERAS = Format(
    "Keras",
    "/",
    norm={"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},
    kernel={"kernel": "kernel", "bias": "bias"},
    embedding={"embedding": "embeddings"},
    depthwise=True,
)
HAIKU = Format(
    "Haiku",
    "/",
    norm={
        "scale": "scale",
        "bias": "offset",
        "mean": "~/mean_ema/average",
        "var": "~/var_ema/average",
    },
    kernel={"kernel": "w", "bias": "b"},
    embedding={"embedding": "embeddings"},
    spare=tuple(f"~/{of}_ema/{name}" for of in ("mean", "var") for name in ("hidden", "counter")),
    nested="~/(?:mean|var)_ema/",
    squeeze=True,
)

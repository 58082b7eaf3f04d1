"""Neighbours of batch norms among a model's linear layers, found by tracing it.

The input and the output of each layer are marked while the model is traced. Where the output of
one is the input of the other, and nothing else reads it, the two may merge.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, Literal, subjaxprs

from jbn._flax.calls import call_arguments, is_frozen
from jbn._flax.linear_layers import Linear, overridden
from jbn._numerics.layout import feature_axes


class Norm(NamedTuple):
    """A batch norm in a traced model."""

    epsilon: float
    ends_in_features: bool
    """Whether the features are the last axes of its input."""


class Neighbours(NamedTuple):
    """The linear layers, by path, that a norm may merge with."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    called_again: tuple[str, ...]
    """Those of the norm and its neighbours that run more than once."""


class Trace:
    """The layers of a model, and which reads which, noted while `around` calls them."""

    def __init__(
        self,
        norms: type,
        linears: Mapping[type, Callable[[Any, int], Linear]],
        unsupported: tuple[type, ...],
    ):
        """Takes the classes of a front-end, and from each linear one to its description."""
        self.norms, self.linears, self.unsupported = norms, linears, unsupported
        self.layers: dict[str, Norm | Linear] = {}
        self.types: set[Any] = set()
        self._marks: dict[str, tuple[str, str]] = {}

    def knows(self, layer: Any) -> bool:
        return isinstance(layer, (self.norms, *self.linears, *self.unsupported))

    def around(self, path: str, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict):
        """Calls `layer` with its input and its output marked."""
        if not self.knows(layer):
            return call(*args, **kwargs)
        if isinstance(layer, self.norms) and not is_frozen(
            layer, call_arguments(layer, args, kwargs)
        ):
            raise ValueError(
                f"{path or 'the layer itself'} normalises with the statistics of a batch, which "
                "no linear layer can do. Call the model as for inference, with train=False for "
                "example."
            )
        x, *rest = args or (kwargs.pop("x" if "x" in kwargs else "inputs"),)
        self.layers[path] = self._describe(layer, x.ndim)
        y = call(self._mark(x, path, "input"), *rest, **kwargs)
        if not isinstance(y, jax.Array):  # a subclass may return more
            return y
        self.types.add(y.dtype)
        return self._mark(y, path, "output")

    def _describe(self, layer: Any, ndim: int) -> Norm | Linear:
        if isinstance(layer, self.norms):
            axes = feature_axes(ndim, layer.axis)
            return Norm(layer.epsilon, axes == tuple(range(ndim - len(axes), ndim)))
        for kind, describe in self.linears.items():
            if isinstance(layer, kind):
                if names := overridden(type(layer), kind):
                    return Linear(refused=f"overrides {', '.join(names)} of {kind.__name__}")
                return describe(layer, ndim)
        return Linear(refused=f"is a {type(layer).__name__}, which is not supported")

    def _mark(self, value: jax.Array, path: str, end: str) -> jax.Array:
        name = f"jbn.fold.{len(self._marks)}"
        self._marks[name] = path, end
        return checkpoint_name(value, name)

    def neighbours(self, jaxpr: Jaxpr) -> dict[str, Neighbours]:
        """Returns the neighbours of each norm in the model that was traced as `jaxpr`."""
        before, after, calls = {}, {}, Counter()
        for inner in _all_jaxprs(jaxpr):
            used = [v for eqn in inner.eqns for v in eqn.invars] + list(inner.outvars)
            uses = Counter(v for v in used if not isinstance(v, Literal))
            writer, readers = {}, defaultdict(list)
            for eqn in inner.eqns:
                name = str(eqn.params.get("name")) if eqn.primitive.name == "name" else ""
                path, end = self._marks.get(name, ("", ""))
                calls[path] += end == "input"
                if end == "input":
                    readers[eqn.invars[0]].append(path)
                elif end == "output":
                    writer[eqn.outvars[0]] = path
            for value, paths in readers.items():
                if value in writer and len(paths) == uses[value]:  # and nothing else reads it
                    after[writer[value]] = tuple(paths)
                    if len(paths) == 1:
                        before[paths[0]] = (writer[value],)

        def linear(paths: tuple[str, ...]) -> tuple[str, ...]:
            return paths if all(isinstance(self.layers[path], Linear) for path in paths) else ()

        neighbours = {}
        for norm in (path for path, layer in self.layers.items() if isinstance(layer, Norm)):
            sides = linear(before.get(norm, ())), linear(after.get(norm, ()))
            again = tuple(path for path in (norm, *sides[0], *sides[1]) if calls[path] > 1)
            neighbours[norm] = Neighbours(*sides, again)
        return neighbours


def _all_jaxprs(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    yield jaxpr
    for inner in subjaxprs(jaxpr):
        yield from _all_jaxprs(inner)

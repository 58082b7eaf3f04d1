"""Convolutions in the one layout that XLA's CPU compiler has a fast kernel for.

It brings other layouts, such as those of gradients, into that one, but not inside of loops, where
they take ten times as long: https://github.com/jax-ml/jax/issues/12868.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p


def features_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function` with the axes of all convolutions in the order N...C, ...IO -> N...C.

    Those in groups stay as they are. Call it after differentiation: the gradient of what it
    returns has convolutions of its own.
    """

    def called(*arguments: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = jaxpr_as_fun(_rewritten(program))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return called


def _rewritten(part: Any) -> Any:
    """Returns a program, or a parameter of an operation that may hold some, without them."""
    if isinstance(part, ClosedJaxpr):
        return part.replace(jaxpr=_rewritten(part.jaxpr))
    if isinstance(part, Jaxpr):
        return part.replace(eqns=[_operation(each) for each in part.eqns])
    return tuple(map(_rewritten, part)) if type(part) is tuple else part


def _operation(eqn: JaxprEqn) -> JaxprEqn:
    params = eqn.params
    if eqn.primitive is not conv_general_dilated_p:
        return eqn.replace(params={name: _rewritten(part) for name, part in params.items()})
    if params["feature_group_count"] > 1 or params["batch_group_count"] > 1:
        return eqn

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _convolve(x, kernel, **params)

    # A call of the same operands and result takes its place.
    (call,) = jax.make_jaxpr(jax.jit(convolve))(*(v.aval for v in eqn.invars)).eqns
    return eqn.replace(primitive=call.primitive, params=call.params)


def _convolve(x: jax.Array, kernel: jax.Array, **params: Any) -> jax.Array:
    n = params["dimension_numbers"]
    inner = tuple(range(2, x.ndim))
    last, kernel_last = (0, *inner, 1), (*inner, 1, 0)
    order = lax.ConvDimensionNumbers(*(_places(axes) for axes in (last, kernel_last, last)))
    y = conv_general_dilated_p.bind(
        lax.transpose(x, [n.lhs_spec[i] for i in last]),
        lax.transpose(kernel, [n.rhs_spec[i] for i in kernel_last]),
        **(params | {"dimension_numbers": order}),
    )
    return lax.transpose(y, _places([n.out_spec[i] for i in last]))


def _places(axes: Any) -> tuple[int, ...]:
    """Returns where each of `axes` stands: the inverse of the permutation."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))

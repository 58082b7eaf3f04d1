"""The layer `BatchNorm` of Flax NNX, over the functions of `jbn`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.typing import Dtype, Initializer
from jaxtyping import Array

from jbn._batch import Schedule, Variant
from jbn._flax.apply import apply_layer, next_step
from jbn._numerics.arrays import as_array
from jbn._numerics.values import check_num_features, is_schedule
from jbn._types import AxisName, RunningStats
from jbn._variants import Standard


def _moved_once(stat: nnx.BatchStat) -> nnx.BatchStat:
    """Makes the reference of `stat`, if it is one, of the kind that `jax.checkpoint` moves once."""
    value = stat.get_raw_value()
    if isinstance(value, jax.Ref) and not stat.hijax:  # hijax variables refuse another
        stat.set_raw_value(jax.new_ref(value[...], kind="no_grad_no_remat"))
    return stat


def set_variant(layer: Any, variant: Variant | Schedule) -> None:
    """Sets a layer's variant, and gives it a count of steps for a schedule, unless it has one.

    Arrays in a variant, the key of `Noisy` for example, are part of the layer's state.
    """
    arrays = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(variant))
    layer.variant = nnx.data(variant) if arrays else variant
    if is_schedule(variant) and not hasattr(layer, "steps"):
        above = layer.mean.shape[:-1]  # of layers that nnx.vmap has stacked
        layer.steps = _moved_once(nnx.BatchStat(jnp.zeros(above, jnp.int32)))


class BatchNorm(nnx.BatchNorm):
    """`flax.nnx.BatchNorm` over the functions of `jbn`: same names, defaults and variables.

    A state of one loads into the other: `scale` and `bias` are `nnx.Param`, `mean` and `var` are
    `nnx.BatchStat`, all of shape (num_features,). `train()` and `eval()` of a model switch it, and
    so does `nnx.view(model, use_running_average=...)`. A batch of one example comes out as the
    bias and leaves the running variance alone. Complex input has one real variance.

    Args:
      num_features: how many there are, over all of `axis`.
      use_running_average: True at inference: normalise with the running statistics.
      axis: the feature axis or axes of the input.
      momentum: the weight kept on the *old* running statistics. PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance.
      dtype: of the result; by default inferred from input and variables. Statistics are float32
        at least, whatever it is.
      param_dtype: of scale and bias.
      use_bias, use_scale: whether there is a bias, a scale. Leave out the bias of a Linear or Conv
        before this layer instead: it cancels.
      bias_init, scale_init: their initializers.
      axis_name: axis, or axes, of `shard_map`, `pmap` or `vmap` that the batch is spread over.
        Under plain `jit` on sharded arrays leave it out.
      axis_index_groups: lists of indices along `axis_name`; the devices of a list share a batch.
      use_fast_variance: accepted for compatibility. There is one variance here, fast and exact.
      promote_dtype: as in Flax, applied to (input, mean, var, scale, bias) before they meet.
        Flax's default only decides the type of the result here; it rounds nothing beforehand.
      variant: the algorithm; see `jbn.Variant`. A `jbn.Schedule` of them, `RenormSchedule()` for
        example, is counted in `steps`, an `nnx.BatchStat` int32 of the training calls so far.
      rngs: for the initializers.
      bias_metadata, scale_metadata: of the variables, `sharding_names` for example.

    Ioffe & Szegedy 2015 (arXiv:1502.03167).

    >>> import jax
    >>> layer = BatchNorm(3, rngs=nnx.Rngs(0))
    >>> x = jax.random.normal(jax.random.key(0), (8, 3))
    >>> y = layer(x)  # trains: moves layer.mean and layer.var
    >>> layer.eval()
    >>> y = layer(x)  # inference
    """

    variant: Variant | Schedule
    steps: nnx.BatchStat[Array]  # only where the variant is a schedule

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: int | Sequence[int] = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = nnx.initializers.zeros_init(),  # noqa: B008 (a function)
        scale_init: Initializer = nnx.initializers.ones_init(),  # noqa: B008 (a function)
        axis_name: AxisName | None = None,
        axis_index_groups: Iterable[Iterable[int]] | None = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., tuple] = dtypes.promote_dtype,
        variant: Variant | Schedule = Standard(),
        rngs: nnx.Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        num_features = check_num_features(num_features)
        shape = (num_features,)
        is_complex = dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
        mean_dtype = jnp.complex64 if is_complex else jnp.float32
        self.mean: nnx.BatchStat[Array] = _moved_once(nnx.BatchStat(jnp.zeros(shape, mean_dtype)))
        self.var: nnx.BatchStat[Array] = _moved_once(nnx.BatchStat(jnp.ones(shape, jnp.float32)))
        self.scale = self.bias = nnx.data(None)
        if use_scale:
            scale = scale_init(rngs.params(), shape, param_dtype)
            self.scale = nnx.Param(scale, **scale_metadata)
        if use_bias:
            self.bias = nnx.Param(bias_init(rngs.params(), shape, param_dtype), **bias_metadata)

        self.num_features = num_features
        self.use_running_average = use_running_average
        self.axis: int | tuple[int, ...] = tuple(axis) if isinstance(axis, Sequence) else axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.axis_name = axis_name
        groups = axis_index_groups
        self.axis_index_groups: tuple[tuple[int, ...], ...] | None = (
            None if groups is None else tuple(tuple(group) for group in groups)
        )
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        set_variant(self, variant)

    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        momentum: Any = None,
        variant: Variant | Schedule | None = None,
    ) -> Array:
        """Normalises `x`, and moves `mean` and `var` unless `use_running_average`.

        Args:
          x: the input, features on `axis`.
          use_running_average: in place of the attribute, for this call.
          mask: True where an example or an element counts: flags per example cover the leading
            batch axes, (N,) even where N equals C; any other shape broadcasts against `x`. Not
            read with `use_running_average`.
          momentum: in place of the attribute, for this call; may be traced, a schedule for
            example. At 0 the running statistics become those of this batch.
          variant: in place of the attribute, for this call; its fields may be traced.

        Raises:
          TypeError, ValueError, NameError: as `jbn.batch_norm`.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise ValueError(
                "use_running_average is None in the constructor and in the call. Give it to one: "
                "False in training, True at inference; or call model.train() or model.eval()."
            )
        variant = self.variant if variant is None else variant
        steps = None
        if is_schedule(variant) and not use_running_average:
            steps = getattr(self, "steps", None)
            if steps is None:
                raise ValueError(
                    f"the layer has no count of steps for {variant!r}. Give the schedule to the "
                    "constructor or replace_norms, or its at(step) to the call."
                )
            variant = variant.at(steps[...])
        x = as_array(x, "x")
        stats = RunningStats(self.mean[...], self.var[...])
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        x, mean, var, scale, bias, dtype = self._promote(x, *stats, scale, bias)
        y, stats = apply_layer(
            x,
            scale,
            bias,
            RunningStats(mean, var) if use_running_average else stats,
            axis=self.axis,
            dtype=dtype,
            use_running_average=use_running_average,
            mask=mask,
            epsilon=self.epsilon,
            momentum=self.momentum if momentum is None else momentum,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            variant=variant,
        )
        if not use_running_average:
            self.mean[...], self.var[...] = stats
            if steps is not None:
                steps[...] = next_step(steps[...])
        return y

    def _promote(self, x, mean, var, scale, bias):
        """Promotes the arrays as `promote_dtype` says; returns the type of the result too."""
        with jax.numpy_dtype_promotion("standard"):
            arrays = (x, mean, var, scale, bias)
            if self.promote_dtype is dtypes.promote_dtype:
                # Its rounding would reach the statistics; its choice of type is all it takes.
                return *arrays, dtypes.canonicalize_dtype(*arrays, dtype=self.dtype)
            x, mean, var, scale, bias = self.promote_dtype(arrays, dtype=self.dtype)
            dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
            return x, mean, var, scale, bias, dtype

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Switches a view of the layer, for `nnx.view`.

        Args:
          use_running_average: True at inference: normalise with the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

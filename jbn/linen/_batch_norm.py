"""The layer `BatchNorm` of Flax Linen, over the functions of `jbn`."""

from collections.abc import Iterable, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from jaxtyping import Array

from jbn._batch import Schedule, Variant
from jbn._flax.apply import apply_layer, next_step
from jbn._numerics.arrays import as_array
from jbn._numerics.layout import feature_axes
from jbn._numerics.values import is_schedule
from jbn._types import AxisName, RunningStats
from jbn._variants import Standard


class BatchStatsImmutableError(flax.errors.ModifyScopeVariableError):
    """A layer in training could not store its running statistics: `mutable` was forgotten."""

    def __init__(self, path: str):
        message = (
            f'BatchNorm "{path}" is training and must move its running statistics, but the '
            'collection "batch_stats" is immutable. Write\n\n'
            '  y, updates = model.apply(variables, x, mutable=["batch_stats"])\n'
            "  variables = {**variables, **updates}\n\n"
            "or, for inference, use_running_average=True."
        )
        Exception.__init__(self, message)  # Flax's own adds a link to Flax's page


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over the functions of `jbn`: same names, defaults and variables.

    A checkpoint of one loads into the other: `params` holds `scale` and `bias`, `batch_stats`
    holds `mean` and `var`, all of the shape of the feature axes. During initialisation the running
    statistics stay 0 and 1, and `axis_name` need not exist. A batch of one example comes out as
    the bias and leaves the running variance alone. Complex input has one real variance.

    Attributes:
      use_running_average: True at inference: normalise with the running statistics. Here or in
        the call, not in both.
      axis: the feature axis or axes of the input.
      momentum: the weight kept on the *old* running statistics. PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance.
      dtype: of the result; by default inferred from input and parameters. Statistics are float32
        at least, whatever it is.
      param_dtype: of scale and bias.
      use_bias, use_scale: whether there is a bias, a scale. Leave out the bias of a Dense or Conv
        before this layer instead: it cancels.
      bias_init, scale_init: their initializers.
      axis_name: axis, or axes, of `shard_map`, `pmap` or `vmap` that the batch is spread over.
        Under plain `jit` on sharded arrays leave it out.
      axis_index_groups: lists of indices along `axis_name`; the devices of a list share a batch.
      use_fast_variance, force_float32_reductions: accepted for compatibility. There is one
        variance here, fast and exact, and it is always computed in float32 at least; the second
        only makes the running statistics `param_dtype` where it is False, as in Flax.
      variant: the algorithm; see `jbn.Variant`. A `jbn.Schedule` of them, `RenormSchedule()` for
        example, is counted in `batch_stats` as `steps`, an int32 of the training calls so far.

    Ioffe & Szegedy 2015 (arXiv:1502.03167).

    >>> import jax, jax.numpy as jnp
    >>> layer = BatchNorm(use_running_average=False)
    >>> x = jax.random.normal(jax.random.key(0), (8, 3))
    >>> variables = layer.init(jax.random.key(1), x)
    >>> y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    >>> print(jax.tree.map(jnp.shape, variables))
    {'batch_stats': {'mean': (3,), 'var': (3,)}, 'params': {'bias': (3,), 'scale': (3,)}}
    """

    axis: int | Sequence[int] = -1  # type: ignore[override]
    axis_name: AxisName | None = None  # type: ignore[override]
    axis_index_groups: Iterable[Iterable[int]] | None = None
    variant: Variant | Schedule = Standard()

    @nn.compact
    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        momentum: Any = None,
        variant: Variant | Schedule | None = None,
    ) -> Array:
        """Normalises `x`, and moves `batch_stats` unless `use_running_average`.

        Args:
          x: the input, features on `axis`.
          use_running_average: as the attribute.
          mask: True where an example or an element counts: flags per example cover the leading
            batch axes, (N,) even where N equals C; any other shape broadcasts against `x`. Not
            read with `use_running_average`.
          momentum: in place of the attribute, for this call; may be traced, a schedule for
            example. At 0 the running statistics become those of this batch.
          variant: in place of the attribute, for this call; its fields may be traced.

        Raises:
          BatchStatsImmutableError: in training without `mutable=["batch_stats"]`.
          TypeError, ValueError, NameError: as `jbn.batch_norm`.
        """
        use_running_average = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        initializing = self.is_initializing()
        training = not (use_running_average or initializing)
        if training and not self.is_mutable_collection("batch_stats"):
            raise BatchStatsImmutableError("/".join(self.path))
        x = as_array(x, "x")
        axes = feature_axes(x.ndim, self.axis)
        shape = tuple(x.shape[a] for a in axes)
        stats_dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        scale = bias = None
        if self.use_scale:
            scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        learned = [vector for vector in (scale, bias) if vector is not None]
        with jax.numpy_dtype_promotion("standard"):
            dtype = canonicalize_dtype(x, *learned, dtype=self.dtype)
            is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
            mean_dtype = jnp.promote_types(
                stats_dtype, jnp.complex64 if is_complex else stats_dtype
            )
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, mean_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, stats_dtype)
        variant = self.variant if variant is None else variant
        steps = None
        if is_schedule(variant) and (training or initializing):
            steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.int32)
            variant = variant.at(steps.value)

        y, stats = apply_layer(
            x,
            scale,
            bias,
            RunningStats(mean.value, var.value),
            axis=axes,
            dtype=dtype,
            use_running_average=use_running_average,
            mask=mask,
            epsilon=self.epsilon,
            momentum=self.momentum if momentum is None else momentum,
            axis_name=None if initializing else self.axis_name,
            axis_index_groups=None if initializing else self.axis_index_groups,
            variant=variant,
        )
        if training:
            mean.value, var.value = stats
            if steps is not None:
                steps.value = next_step(steps.value)
        return y

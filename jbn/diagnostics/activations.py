"""Activations of a layer: percentiles, dead units, rank and isometry."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jbn._numerics.arrays import check_float, statistics_dtype


def activation_percentiles(
    x: Float[Array, "*batch C"], percentiles: tuple[float, ...] = (15, 50, 85)
) -> Float[Array, "P C"]:
    """Returns the percentiles of each unit over all examples, interpolated linearly.

    Args:
      x: activations, or the inputs of the nonlinearity; features last.
      percentiles: P of them, from 0 to 100.

    Raises:
      ValueError: if `x` is no batch, or a percentile is out of range.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), figure 1b and c, follow one unit's 15th, 50th and 85th
    through training.

    >>> import jax.numpy as jnp
    >>> print(activation_percentiles(jnp.arange(11.0)[:, None], (15, 50))[:, 0])
    [1.5 5. ]
    """
    if not all(0 <= percentile <= 100 for percentile in percentiles):
        raise ValueError(f"percentiles must lie in [0, 100], got {percentiles}.")
    in_order = jnp.sort(_rows(x), axis=0)
    # Ranks in double precision: float32 would misplace those of a large data set.
    rank = np.array(percentiles) / 100 * (in_order.shape[0] - 1)
    low, high = in_order[np.floor(rank).astype(int)], in_order[np.ceil(rank).astype(int)]
    between = jnp.asarray(rank % 1, in_order.dtype)[:, None]
    values = jnp.where(between > 0, (1 - between) * low + between * high, low)
    # NaN is sorted last: a unit that holds one has no percentiles.
    return jnp.where(jnp.isnan(in_order[-1:]), jnp.nan, values)


def dead_units(
    x: Float[Array, "*batch C"], *, threshold: float | Float[Array, ""] = 0.0
) -> Bool[Array, "C"]:
    """Tells which units stay at or below the threshold for every example.

    With the threshold of a ReLU, zero, such a unit has no gradient and cannot recover by itself.
    The mean of the result is the fraction that died. Ask over the whole training set: over one
    batch a unit may only be quiet.

    Args:
      x: a ReLU's inputs or its outputs, the answer is the same; features last.
      threshold: below or at which a unit is silent.

    Raises:
      ValueError: if `x` is no batch.

    Lu et al. 2019 (arXiv:1903.06733).

    >>> import jax.numpy as jnp
    >>> print(dead_units(jnp.array([[0.0, -1.0, 0.0], [2.0, -3.0, 0.0]])))
    [False  True  True]
    """
    rows = _rows(x)
    return jnp.all(rows <= jnp.asarray(threshold, rows.dtype), axis=0)


def isometry_gap(x: Float[Array, "N ..."], *, centred: bool = False) -> Float[Array, ""]:
    r"""Measures how far N representations are from being orthogonal and of one length.

    $$\phi = \log \frac{1}{N} \sum_i \lambda_i - \frac{1}{N} \sum_i \log \lambda_i$$

    with $\lambda$ the eigenvalues of the Gram matrix $X X^\top$ of the examples. Zero for an
    isometry. Infinite if some examples are linearly dependent to rounding, as they are where N
    exceeds the dimension, and as those that batch norm has centred always are: their sum is zero.
    For these take `centred`. Dimensionless; the scale of `x` does not matter.

    Args:
      x: one representation per example; all axes but the first are one vector.
      centred: subtract the mean of the examples, and leave out the one eigenvalue that this makes
        zero: N - 1 remain.

    Raises:
      ValueError: if `x` has fewer than two axes.

    Joudaki, Daneshmand & Bach 2023 (arXiv:2305.18399); Meterez et al. 2024 (arXiv:2310.02012).

    >>> import jax.numpy as jnp
    >>> print(isometry_gap(3 * jnp.eye(4)), isometry_gap(jnp.diag(jnp.array([1.0, 2.0]))))
    0.0 0.22314...
    """
    examples = _examples(x)
    if centred:
        examples = examples - jnp.mean(examples, axis=0, keepdims=True)
    values = _singular_values(examples)
    # Examples beyond the dimension have the eigenvalue zero.
    values = jnp.pad(values, (0, examples.shape[0] - values.size))
    values = values[:-1] if centred else values
    rounding = max(examples.shape) * float(jnp.finfo(values.dtype).eps) * values[0]
    values = jnp.square(jnp.where(values > rounding, values, 0))
    gap = jnp.log(jnp.mean(values)) - jnp.mean(jnp.log(values))
    return jnp.where(values[0] > 0, gap, jnp.inf)


def effective_rank(x: Float[Array, "N ..."], *, squared: bool = False) -> Float[Array, ""]:
    r"""Counts the directions that N representations spread over, by entropy.

    $$\exp\left( -\sum_i p_i \log p_i \right), \qquad p_i = \frac{\sigma_i}{\sum_j \sigma_j}$$

    with $\sigma$ the singular values of `x`. From 1 to min(N, dimension), and 0 for zeros; the
    scale of `x` does not matter, its mean does: subtract that first if you mean a covariance.

    Args:
      x: one representation per example; all axes but the first are one vector.
      squared: take $\sigma_i^2$, the eigenvalues of the Gram matrix $X X^\top$, in place of
        $\sigma_i$: the shares of variance, and a smaller number.

    Raises:
      ValueError: if `x` has fewer than two axes.

    Roy & Vetterli 2007, "The effective rank", definition 1.

    >>> import jax.numpy as jnp
    >>> x = jnp.diag(jnp.array([2.0, 1.0]))
    >>> print(effective_rank(x).round(4), effective_rank(x, squared=True).round(4))
    1.8899 1.6494
    """
    values = _singular_values(_examples(x))
    values = jnp.square(values) if squared else values
    total = jnp.sum(values)
    p = values / jnp.where(total > 0, total, 1)
    rank = jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1))))
    return jnp.where(total > 0, rank, 0)


def participation_ratio(x: Float[Array, "N ..."]) -> Float[Array, ""]:
    r"""Counts the directions that N representations spread over, by second moments.

    $$r = \frac{(\operatorname{tr} M)^2}{\|M\|_F^2}
      = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}, \qquad M = X X^\top$$

    From 1 to the rank of `x`, which it bounds from below, and never above `effective_rank`; 0 for
    zeros. No decomposition: as cheap as one product of matrices.

    Args:
      x: one representation per example; all axes but the first are one vector.

    Raises:
      ValueError: if `x` has fewer than two axes.

    Daneshmand et al. 2020 (arXiv:2003.01652), as $r(H)$.

    >>> import jax.numpy as jnp
    >>> print(participation_ratio(jnp.diag(jnp.array([1.0, 1.0, 0.0]))))
    2.0
    """
    gram = _gram(_unit_scale(_examples(x)))
    total = jnp.sum(jnp.square(gram))
    return jnp.square(jnp.trace(gram)) / jnp.where(total > 0, total, 1)


def orthogonality_gap(x: Float[Array, "N ..."]) -> Float[Array, ""]:
    r"""Measures how far the Gram matrix of N representations is from a multiple of the identity.

    $$V = \left\| \frac{X X^\top}{\|X\|_F^2} - \frac{I_N}{N} \right\|_F$$

    Zero if all are orthogonal and of one length, $\sqrt{1 - 1/N}$ if all are the same. Centred over
    the examples, as after batch norm with a mean, it cannot fall below $1 / \sqrt{N (N - 1)}$.
    Zeros are all the same.

    Args:
      x: one representation per example; all axes but the first are one vector.

    Raises:
      ValueError: if `x` has fewer than two axes.

    Daneshmand, Joudaki & Bach 2021 (arXiv:2106.03970), as $V(H)$.

    >>> import jax.numpy as jnp
    >>> print(orthogonality_gap(jnp.eye(4)), round(float(orthogonality_gap(jnp.ones((4, 3)))), 4))
    0.0 0.866
    """
    gram = _gram(_unit_scale(_examples(x)))
    n, total = gram.shape[0], jnp.trace(gram)
    gap = jnp.linalg.norm(gram / jnp.where(total > 0, total, 1) - jnp.eye(n, dtype=gram.dtype) / n)
    return jnp.where(total == 0, (1 - 1 / n) ** 0.5, gap)


def mean_absolute_cosine(x: Float[Array, "N ..."]) -> Float[Array, ""]:
    r"""Measures how alike the representations of different examples are, whatever their sign.

    $$\frac{2}{N (N - 1)} \sum_{i < j} \frac{|\langle x_i, x_j \rangle|}{\|x_i\| \|x_j\|}$$

    From 0, all orthogonal, to 1, all on one line. NaN if one is zero: it has no direction, so leave
    it out.

    Args:
      x: one representation per example, two at least; all axes but the first are one vector.

    Raises:
      ValueError: if `x` has fewer than two axes, or holds one example.

    Daneshmand, Joudaki & Bach 2021 (arXiv:2106.03970), figure 1.

    >>> import jax.numpy as jnp
    >>> print(mean_absolute_cosine(jnp.array([[1.0, 0.0], [-5.0, 0.0], [0.0, 2.0]])))
    0.333333...
    """
    examples = _examples(x)
    if examples.shape[0] < 2:
        raise ValueError(f"x of shape {x.shape} holds one example. Cosines need two or more.")
    largest = jnp.max(jnp.abs(examples), axis=1, keepdims=True)
    examples = examples / largest
    rows = examples / jnp.linalg.norm(examples, axis=1, keepdims=True)
    pairs = jnp.abs(_gram(rows))[jnp.triu_indices(examples.shape[0], 1)]
    return jnp.mean(pairs)


def _rows(x: Array) -> Array:
    """Returns `(examples, features)`, of a type that quantiles and averages can be taken in."""
    _check_axes(x)
    return x.reshape(-1, x.shape[-1]).astype(statistics_dtype(x.dtype))


def _examples(x: Array) -> Array:
    """Returns one vector per example."""
    _check_axes(x)
    return x.reshape(x.shape[0], -1).astype(statistics_dtype(x.dtype))


def _check_axes(x: Array) -> None:
    check_float(x)
    if x.ndim < 2 or not x.size:
        raise ValueError(
            f"x must hold a batch of examples along its first axis and features, got {x.shape}."
        )


def _singular_values(examples: Array) -> Array:
    # Not eigenvalues of the Gram matrix, which squares the rounding error of the small ones.
    return jnp.linalg.svd(_unit_scale(examples), compute_uv=False)


def _unit_scale(examples: Array) -> Array:
    """Divides by the largest number: fourth powers then neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(examples))
    return examples / jnp.where(largest > 0, largest, 1)


def _gram(examples: Array) -> Array:
    # HIGHEST, or a GPU would take the products in TensorFloat-32.
    return jnp.matmul(examples, examples.T, precision=lax.Precision.HIGHEST)

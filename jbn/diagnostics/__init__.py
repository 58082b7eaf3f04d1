"""Measurements of a network, for anyone's model: functions of arrays, or of a loss and parameters.

None depends on batch norm. To compare a network with it and without, measure of both:

- **Does it smooth the loss?** `along_gradient` (Santurkar et al. 2018, figure 4), and
  `hessian_eigenvalues` and `hessian_trace` along the way; `sharpness` against what the learning
  rate can bear; each `per_layer`. The range of step sizes decides.
- **How far does the rest of its batch decide an example's output?** `batch_dependence`.
- **Does it reduce internal covariate shift?** `activation_shift` for what Ioffe & Szegedy meant,
  `gradient_shift` for what Santurkar et al. measured. The two may disagree.
- **Do gradients explode, vanish or become noise?** `gradient_norms` over depth, and
  `gradient_noise_scale`, `relative_noise`, `gradient_cosine`, `gradient_distance`.
- **How fast do weights turn whose scale does not matter?** `weight_gradient_cosine` (zero before
  batch norm), `angular_update`, `effective_learning_rate`.
- **What do the activations look like?** `activation_percentiles`, `dead_units`, and how much
  of the input survives depth: `isometry_gap`, `effective_rank`, `participation_ratio`,
  `orthogonality_gap`, `mean_absolute_cosine`.

Two habits keep such comparisons honest. The learning rate is swept, for the answer often changes
sign with it. And weights before batch norm have no scale of their own: a gradient, a distance or a
curvature there means something only beside another, or beside the weights' norm.

All work under `jit`, `vmap` and `scan`, in float32 and float64; arrays of half precision are
measured in float32. A loss with running statistics closes over them: `lambda params: ...`. Not
imported by `import jbn`: write `from jbn import diagnostics`.
"""

# Activations.
from jbn.diagnostics.activations import (
    activation_percentiles,
    dead_units,
    effective_rank,
    isometry_gap,
    mean_absolute_cosine,
    orthogonality_gap,
    participation_ratio,
)

# The rest of the batch.
from jbn.diagnostics.batch import batch_dependence

# Gradients.
from jbn.diagnostics.gradients import (
    NoiseScale,
    gradient_cosine,
    gradient_distance,
    gradient_noise_scale,
    gradient_norms,
    relative_noise,
)

# The Hessian.
from jbn.diagnostics.hessian import (
    Eigenpairs,
    Sharpness,
    Trace,
    hessian_eigenvalues,
    hessian_trace,
    hessian_vector_product,
    per_layer,
    sharpness,
)

# The loss landscape.
from jbn.diagnostics.landscape import AlongGradient, along_gradient

# Internal covariate shift.
from jbn.diagnostics.shift import ActivationShift, GradientShift, activation_shift, gradient_shift

# Weights.
from jbn.diagnostics.weights import (
    angular_update,
    effective_learning_rate,
    weight_gradient_angle,
    weight_gradient_cosine,
)

__all__ = [
    "ActivationShift",
    "AlongGradient",
    "Eigenpairs",
    "GradientShift",
    "NoiseScale",
    "Sharpness",
    "Trace",
    "activation_percentiles",
    "activation_shift",
    "along_gradient",
    "angular_update",
    "batch_dependence",
    "dead_units",
    "effective_learning_rate",
    "effective_rank",
    "gradient_cosine",
    "gradient_distance",
    "gradient_noise_scale",
    "gradient_norms",
    "gradient_shift",
    "hessian_eigenvalues",
    "hessian_trace",
    "hessian_vector_product",
    "isometry_gap",
    "mean_absolute_cosine",
    "orthogonality_gap",
    "participation_ratio",
    "per_layer",
    "relative_noise",
    "sharpness",
    "weight_gradient_angle",
    "weight_gradient_cosine",
]

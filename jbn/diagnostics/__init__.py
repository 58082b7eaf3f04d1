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
from jbn.diagnostics.activations import activation_percentiles as activation_percentiles
from jbn.diagnostics.activations import dead_units as dead_units
from jbn.diagnostics.activations import effective_rank as effective_rank
from jbn.diagnostics.activations import isometry_gap as isometry_gap
from jbn.diagnostics.activations import mean_absolute_cosine as mean_absolute_cosine
from jbn.diagnostics.activations import orthogonality_gap as orthogonality_gap
from jbn.diagnostics.activations import participation_ratio as participation_ratio

# The rest of the batch.
from jbn.diagnostics.batch import batch_dependence as batch_dependence

# Gradients.
from jbn.diagnostics.gradients import NoiseScale as NoiseScale
from jbn.diagnostics.gradients import gradient_cosine as gradient_cosine
from jbn.diagnostics.gradients import gradient_distance as gradient_distance
from jbn.diagnostics.gradients import gradient_noise_scale as gradient_noise_scale
from jbn.diagnostics.gradients import gradient_norms as gradient_norms
from jbn.diagnostics.gradients import relative_noise as relative_noise

# The Hessian.
from jbn.diagnostics.hessian import Eigenpairs as Eigenpairs
from jbn.diagnostics.hessian import Sharpness as Sharpness
from jbn.diagnostics.hessian import Trace as Trace
from jbn.diagnostics.hessian import hessian_eigenvalues as hessian_eigenvalues
from jbn.diagnostics.hessian import hessian_trace as hessian_trace
from jbn.diagnostics.hessian import hessian_vector_product as hessian_vector_product
from jbn.diagnostics.hessian import per_layer as per_layer
from jbn.diagnostics.hessian import sharpness as sharpness

# The loss landscape.
from jbn.diagnostics.landscape import AlongGradient as AlongGradient
from jbn.diagnostics.landscape import along_gradient as along_gradient

# Internal covariate shift.
from jbn.diagnostics.shift import ActivationShift as ActivationShift
from jbn.diagnostics.shift import GradientShift as GradientShift
from jbn.diagnostics.shift import activation_shift as activation_shift
from jbn.diagnostics.shift import gradient_shift as gradient_shift

# Weights.
from jbn.diagnostics.weights import angular_update as angular_update
from jbn.diagnostics.weights import effective_learning_rate as effective_learning_rate
from jbn.diagnostics.weights import weight_gradient_angle as weight_gradient_angle
from jbn.diagnostics.weights import weight_gradient_cosine as weight_gradient_cosine

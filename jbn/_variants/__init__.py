"""Algorithms of batch normalization as values.

Every batch norm does the same three things: it describes the batch by moments, it maps the batch
elementwise with a mean and a deviation, and it moves a running average. The published variants
differ in one choice: which statistics the map uses, and which of them a gradient may flow through.
So a variant is a small frozen value that is called with a batch and the running statistics and
returns the normalised batch and its moments. The running average, the Flax layers, calibration
and the experiments are written once, against that call; a new variant is a new file here.

- `Standard`: the batch's own mean and biased variance, gradient through both.
- `Ghost`: those of each small group of the batch, with any other variant inside a group.
- `Renorm`: the batch's, corrected towards the running ones within bounds; `RenormSchedule` widens
  them step by step.
- `Running`: the running ones.
- `Uncentered`: no mean, and the second moment about zero.
- `Detached`: the batch's, without the gradient through the mean, the variance or both.
- `Noisy`: any other's output made unstable by noise.

Fields that may change from step to step (the bounds of `Renorm`, the key of `Noisy`) are leaves of
a pytree and do not recompile; all others are part of the program.
"""

from jbn._variants._detached import Detached as Detached
from jbn._variants._ghost import Ghost as Ghost
from jbn._variants._noisy import Noisy as Noisy
from jbn._variants._renorm import Renorm as Renorm
from jbn._variants._renorm import RenormSchedule as RenormSchedule
from jbn._variants._running import Running as Running
from jbn._variants._standard import Standard as Standard
from jbn._variants._uncentered import Uncentered as Uncentered

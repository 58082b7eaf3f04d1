"""Algorithms of batch normalization as values.

Every batch norm does the same three things: it describes the batch by moments, it maps the batch
elementwise with a mean and a deviation, and it moves a running average. The published variants
differ in one choice: which statistics the map uses, and which of them a gradient may flow through.
So a variant is a small frozen value that is called with a batch and the running statistics and
returns the normalised batch and its moments. The running average, the Flax layers, calibration
and the experiments are written once, against that call; a new variant is a new file here.

- `Standard`: the batch's own mean and biased variance, gradient through both.
"""

from jbn._variants._standard import Standard as Standard

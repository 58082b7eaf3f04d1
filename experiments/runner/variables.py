"""Variables of a study's dataset: dimensions, type, unit, and how each is measured."""

from typing import Any, NamedTuple

import numpy as np

from experiments.study.measure import FARTHEST, MOST_ROWS
from experiments.study.tasks import EXAMPLE_SCORE, Task, score_type
from experiments.study.train import NOISE_BATCHES, PERCENTILE_EXAMPLES, RECALIBRATION_EXAMPLES
from experiments.study.windows import FEWEST_PAIRS, STEPS_PER_PAIR

SECONDS = "seconds_per_step"

_RUN = ("norm", "learning_rate", "seed")
_STEP = (*_RUN, "step")
_POPULATION = (
    f"with population statistics: those of the first {RECALIBRATION_EXAMPLES} training examples "
    "(or all, if fewer), as one batch at these weights"
)
_PAIRS = (
    f"on two successive steps in every {STEPS_PER_PAIR} since the last evaluation, and on "
    f"{FEWEST_PAIRS} such pairs at least, but one where that was 2 or 3 steps before"
)
_LOOK = (
    f"over the first {PERCENTILE_EXAMPLES} test examples (or all, if fewer), their positions "
    f"counted as examples, {MOST_ROWS} at most"
)


class Variable(NamedTuple):
    """A variable of the dataset."""

    dims: tuple[str, ...]
    long_name: str
    units: str
    description: str
    dtype: Any = np.float32

    @property
    def blank(self) -> float:
        """Returns what stands where nothing is measured."""
        return np.nan if np.issubdtype(self.dtype, np.floating) else -1


def _judged(task: Task, split: str, of: str) -> dict[str, Variable]:
    score, loss, kept = task.score_name, task.loss_name, score_type(task)
    each = "1 where it is right, 0 where not" if kept is np.int8 else "what its mean is made of"
    return {
        f"{split}_{task.variable}": Variable(
            _STEP, f"{split} {score}", "1", f"{score.capitalize()} on the {of}, {_POPULATION}."
        ),
        f"{split}_loss": Variable(
            _STEP, f"{split} loss", task.loss_unit, f"Mean {loss} over the {of}, {_POPULATION}."
        ),
        f"{split}_{EXAMPLE_SCORE}": Variable(
            (*_RUN, f"{split}_example"),
            f"{split} {score} of each example",
            "1",
            f"{score.capitalize()} on each example of the {of} at the last step, {_POPULATION}: "
            f"{each}; {'-1' if kept is np.int8 else 'NaN'} of a run that diverged.",
            kept,
        ),
    }


def variables(task: Task, *, has_validation: bool) -> dict[str, Variable]:
    """Returns all that is measured of a run at `task`, with its unit and how it is measured."""
    return {
        **_judged(task, "test", "test set"),
        **(_judged(task, "validation", "validation set") if has_validation else {}),
        "train_loss": Variable(
            _STEP,
            "training loss",
            task.loss_unit,
            f"Mean {task.loss_name} of the batches trained on since the last evaluation, all "
            "steps.",
        ),
        **_OF_ANY_TASK,
    }


_OF_ANY_TASK = {
    "gradient_norm": Variable(
        (*_STEP, "layer"),
        "gradient norm",
        "loss / weight unit",
        f"L2 norm of the kernel's gradient, {_PAIRS}: the mean.",
    ),
    "gradient_norm_cv": Variable(
        (*_STEP, "layer"),
        "variation of the gradient norm",
        "1",
        f"L2 norm of the kernel's gradient, {_PAIRS}: sample standard deviation over mean.",
    ),
    "gradient_noise": Variable(
        (*_STEP, "layer"),
        "gradient noise",
        "1",
        f"sqrt(mean |g_b - g|^2) / |g| of the kernel's gradients g_b of {NOISE_BATCHES} training "
        "batches at the same weights, g their mean; pure noise gives about "
        f"{(NOISE_BATCHES - 1) ** 0.5:.1f}.",
    ),
    "gradient_cosine": Variable(
        _STEP,
        "cosine between successive gradients",
        "1",
        f"Cosine between the gradients of all parameters, {_PAIRS}: the mean.",
    ),
    "update_ratio": Variable(
        (*_STEP, "layer"),
        "update-to-weight ratio",
        "1",
        f"|update| / |weights| of the kernel, {_PAIRS}: the mean.",
    ),
    "activation_percentile": Variable(
        (*_STEP, "percentile"),
        "output of the last norm",
        "1",
        f"Percentiles of each unit {_LOOK}, median over units, {_POPULATION}.",
    ),
    "activation_histogram": Variable(
        (*_STEP, "place", "bin"),
        "distribution of what norms give out",
        "1",
        f"Fraction of the values in each bin {_LOOK}, all units taken together, {_POPULATION}; "
        f"what lies beyond ±{FARTHEST:g} counts with the outermost bins. A network without norm is "
        "looked at in the same places, and each one's output last.",
    ),
    "diverged_at": Variable(
        _RUN,
        "step of divergence",
        "step",
        "Updates made when the loss was first not finite, -1 if it never was. The run was frozen "
        "there, and what was measured later is NaN.",
        np.int32,
    ),
    SECONDS: Variable(
        ("norm", "step"),
        "time per step and run",
        "s",
        "Wall time of the steps since the last evaluation, gradients measured along, of all runs "
        "of the norm on all devices together, over steps and runs. Evaluations and compilation are "
        "left out: NaN for a process's first window of each norm.",
    ),
}

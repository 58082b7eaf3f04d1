"""What a reader must know to read each figure, whatever library draws it."""

from typing import NamedTuple


class Caption(NamedTuple):
    """What a figure shows, and the variables whose description says how it was measured."""

    text: str
    measures: tuple[str, ...]


CAPTIONS = {
    "accuracy": Caption(
        "Test accuracy while training: every network at the baseline's best learning rate, and "
        "each at its own best.",
        ("test_accuracy",),
    ),
    "loss": Caption("The same for the loss.", ("test_loss", "train_loss")),
    "learning_rate": Caption(
        "Where each network trains: the line is the mean of the runs whose loss stayed finite, a "
        "point is one run. A cross is a run that diverged: in the grey strip by its loss, with the "
        "count; on a point by its accuracy.",
        (),
    ),
    "steps": Caption(
        "First evaluation at or above the target: small points are seeds, the large one their "
        "mean. Crosses count the seeds that never arrive; then no mean is drawn.",
        (),
    ),
    "gradient_norm": Caption(
        "How large the gradient of each layer's kernel is.", ("gradient_norm",)
    ),
    "gradient_variation": Caption(
        "How unsteady that size is from step to step.", ("gradient_norm_cv",)
    ),
    "gradient_noise": Caption(
        "How far the gradients of different batches disagree at the same weights: 1 is noise as "
        "large as the gradient itself.",
        ("gradient_noise",),
    ),
    "gradient_cosine": Caption(
        "How well one step's gradient predicts the next one's direction: 1 the same, 0 unrelated, "
        "below 0 reversed.",
        ("gradient_cosine",),
    ),
    "update_ratio": Caption(
        "How far a step moves the weights, relative to their size.", ("update_ratio",)
    ),
    "percentiles": Caption(
        "The {15, 50, 85}th percentiles of the inputs to the last hidden activation, after Ioffe "
        "and Szegedy (2015), figure 1 (b, c): level lines are a steady distribution.",
        ("activation_percentile",),
    ),
}

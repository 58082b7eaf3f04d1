"""Captions of the figures, whatever library draws them."""

from typing import NamedTuple


class Caption(NamedTuple):
    """A figure's title, what it shows, and the variables whose description says how measured."""

    title: str
    text: str
    measures: tuple[str, ...]

    def about(self, score: str) -> "Caption":
        """Returns it with another `score` in the place of accuracy."""
        title, text = (text.replace("accuracy", score) for text in self[:2])
        return Caption(title, text, self.measures)


CAPTIONS = {
    "accuracy": Caption(
        "Test accuracy while training",
        "How soon, and how far, each network gets.",
        (),
    ),
    "loss": Caption(
        "Test and training loss",
        "The loss on the test set, and on the batches trained on.",
        ("test_loss", "train_loss"),
    ),
    "learning_rate": Caption(
        "Test accuracy after training, at every learning rate",
        "Where each network trains: the line is the mean, a point is one run. A cross is a run "
        "that did not learn: in the grey strip if its loss was not finite, with the count; it "
        "counts as chance in the mean.",
        (),
    ),
    "steps": Caption(
        "Steps until test accuracy reaches a target",
        "First evaluation at or above the target: small points are seeds, the large one their "
        "mean. Crosses count the seeds that never arrive; then no mean is drawn.",
        (),
    ),
    "gradient_norm": Caption(
        "Size of the gradient, layer by layer",
        "How large the gradient of each layer's kernel is.",
        ("gradient_norm",),
    ),
    "gradient_variation": Caption(
        "Variation of the gradient's size over steps",
        "How unsteady that size is from step to step.",
        ("gradient_norm_cv",),
    ),
    "gradient_noise": Caption(
        "Noise of the gradient over batches",
        "How far the gradients of different batches disagree at the same weights: 1 is noise as "
        "large as the gradient itself.",
        ("gradient_noise",),
    ),
    "gradient_cosine": Caption(
        "Do successive gradients agree?",
        "How well one step's gradient predicts the next one's direction: 1 the same, 0 unrelated, "
        "below 0 reversed.",
        ("gradient_cosine",),
    ),
    "update_ratio": Caption(
        "Size of an update relative to the weights",
        "How far a step moves the weights, relative to their size.",
        ("update_ratio",),
    ),
    "percentiles": Caption(
        "What the last norm gives out",
        "The {15, 50, 85}th percentiles of what the last norm gives out, in a small network the "
        "inputs of the last hidden activation, after Ioffe and Szegedy (2015), figure 1 (b, c): "
        "level lines are a steady distribution.",
        ("activation_percentile",),
    ),
}

# Drawn where a study has several values of a field.
VALUES = Caption(
    "Test accuracy after training, at every value",
    "Each network at its own best learning rate: the line is the mean, in which a run whose loss "
    "was not finite counts as chance; a point is one run. A line joins networks that differ in "
    "nothing else.",
    (),
)

# Drawn where it was measured: studies of earlier versions lack it.
DISTRIBUTION = Caption(
    "What every norm gives out, as training goes on",
    "The distribution of what each norm gives out (without norm, of what passes its place), all "
    "units and test examples together, mean over seeds, each curve drawn to the same height. A "
    "dotted line is the slope of the activation: where it is low, no gradient comes back.",
    ("activation_histogram",),
)

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
        "How soon, and how far, each network gets. A diamond is where it reaches a target, the "
        "geometric mean over seeds, if all of them do. The axis spreads out towards 100 %.",
        (),
    ),
    # Where a study has several values of a field.
    "values": Caption(
        "Test accuracy after training, at every value",
        "Each network at its own best learning rate: the line is the mean, in which a run whose "
        "loss was not finite counts as chance; a point is one run. A line joins networks that "
        "differ in nothing else.",
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
        "that did not learn. One whose loss was not finite counts as chance; how many there are "
        "stands beside it.",
        (),
    ),
    # Where it has several settings.
    "budget": Caption(
        "Test accuracy to expect of a budget",
        "What is had after trying so many settings, drawn at random, with one seed each, and "
        "keeping the best: by validation accuracy, or by test accuracy where there are no "
        "validation data. A curve that begins high says that nearly any setting works.",
        (),
    ),
    "steps": Caption(
        "Steps until test accuracy reaches a target",
        "The first evaluation at or above each target: a thin line is a seed, the thick one their "
        "geometric mean, drawn as far as all seeds arrive. Who arrives at the first evaluation "
        "may have been there sooner.",
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
        "The 15th, 50th and 85th percentiles of what the last norm gives out, in a small network "
        "the inputs of the last hidden activation, after Ioffe and Szegedy (2015), figure 1 "
        "(b, c): level lines are a steady distribution.",
        ("activation_percentile",),
    ),
}

# Drawn where it was measured: studies of earlier versions lack it.
DISTRIBUTION = Caption(
    "What every norm gives out, as training goes on",
    "The distribution of what each norm gives out (without norm, of what passes its place), all "
    "units and test examples together, mean over seeds. All areas are equal, and what is cut off "
    "at the top is narrow. A dotted line is the slope of the activation, to a scale of its own: "
    "where it is low, no gradient comes back.",
    ("activation_histogram",),
)

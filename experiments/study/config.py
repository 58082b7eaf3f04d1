"""Studies: one frozen value each, checked field by field, that a file in `configs/` builds."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import tyro

from experiments.study import datasets, optimizers, tasks
from experiments.study.norms import Norm, is_random, is_variant
from experiments.study.values import (
    LARGEST_WHOLE,
    check,
    check_flags,
    fraction,
    not_negative,
    one_or_several,
    positive,
    show,
    tuple_of,
    whole,
)
from experiments.system import text

Schedule = Literal["constant", "cosine"]

# The numbers that a program can be given: what else differs, it must be compiled for.
SWEPT = ("init_std", *optimizers.NUMBERS, "momentum", "epsilon")

_WORDS: dict[str, Mapping[str, Any]] = {
    "data": datasets.WORDS,
    "optimizer": optimizers.WORDS,
    "task": tasks.WORDS,
}


def _written(field: str, example: str) -> Any:
    """Has the command line read a field that is a value as a word, or as a config writes it."""
    words = _WORDS.get(field, {})
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="|".join([*words, f"'{example}'"]),
        instance_from_str=lambda given: words[given[0]] if given[0] in words else _read(*given),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [show(value)],
    )


@dataclass(frozen=True)
class Study:
    """Networks that differ in their norm alone, trained at every learning rate from every seed.

    Where a field such as `epsilon` has several values, each of the `norms` stands for as many
    networks, one for each value that it can notice: one program trains them all.

    Raises:
        ConfigError: for a field of the wrong type or out of range, naming field, value and allowed.
    """

    name: str
    """Short name, for titles."""

    claim: str
    """The sentence that the study tests."""

    data: Annotated[Any, _written("data", 'Csv("mine.csv", "y")')]
    """What to learn: scikit-learn's 8x8 digits (nothing to download), MNIST, or MNIST in black and
    white; or Digits(), Mnist(), Arrays(x, y), Npz(path), Csv(path, target=..), with options."""

    norms: Annotated[Any, _written("norms", '{"none": None, "layer": LayerNorm()}')]
    """What is compared: a label for each network, and its norm. That is a variant of batch norm
    such as Standard(), a Flax module such as LayerNorm(), RMSNorm(), GroupNorm(8), WeightNorm() or
    DynamicTanh(), a function that returns one, or None."""

    network: Annotated[Any, _written("network", 'MLP((100, 100), "relu")')]
    """MLP(widths, activation), or a function of a norm that returns a Flax module, in which
    `norm(name)` makes the layer under study. It may have a second argument `outputs`: how many."""

    optimizer: Annotated[Any, _written("optimizer", "AdamW(weight_decay=0.1)")]
    """SGD(momentum=0.9), Adam(), AdamW() with their numbers, or a function of a learning rate that
    returns an optax transformation."""

    learning_rates: tuple[float, ...]
    """Every network is trained at each of these."""

    seeds: tuple[int, ...]
    """Every network is trained from each of these: a seed fixes initial weights and batches."""

    batch_size: int
    """Training examples per step, drawn with replacement."""

    steps: int
    """Training steps of each run."""

    evaluate_every: int
    """Steps between evaluations, at least 2; divides `steps`."""

    task: Annotated[Any, _written("task", "Objective(loss, score)")] = tasks.DEFAULT
    """Classification (cross-entropy, accuracy), regression (squared error, R²), or Objective(loss,
    score) of functions of outputs and targets."""

    schedule: Schedule = "constant"
    """The learning rate over the steps: constant, or falling to zero along half a cosine."""

    warmup: int = 0
    """Steps in which the learning rate rises to what it is, evenly, before `schedule`."""

    clip: float | None = None
    """The largest L2 norm of all gradients together; a larger one is scaled down to it."""

    init_std: float | tuple[float, ...] | None = None
    """Standard deviation of the initial kernels, of a network with such a field (MLP); None for the
    network's own. One value, or several to compare."""

    weight_decay: float | tuple[float, ...] | None = None
    """Weight decay, of an optimizer with such a field (SGD, AdamW); None for the optimizer's own.
    One or several; so may be each number of SGD, Adam and AdamW."""

    momentum: float | tuple[float, ...] = 0.99
    """Weight that a variant's running statistics keep on the old value; one or several."""

    epsilon: float | tuple[float, ...] = 1e-5
    """Added to a variant's variance before the square root; one or several."""

    margin: float = 0.005
    """How far apart two final scores may lie and count as equal: 0.005 is half a point of
    accuracy. Reports call networks equal where the whole interval of their difference lies within
    it."""

    data_parallel: bool = False
    """Spread each batch over the devices, and batch norm's moments with it, instead of the runs:
    for batches that are too large for one. The number of devices divides `batch_size`."""

    def __post_init__(self) -> None:
        for field, words in _WORDS.items():
            given = getattr(self, field)
            if isinstance(given, str) and given in words:
                object.__setattr__(self, field, words[given])
        check(self, "name", text.is_plain, text.PLAIN)
        check(self, "claim", text.is_plain, text.PLAIN)
        self._check_values()
        enough = f"a whole number from 2, for a variance, to {LARGEST_WHOLE}"
        check(self, "batch_size", whole(2), enough)
        check(self, "steps", whole(1), f"a whole number from 1 to {LARGEST_WHOLE}")
        check(self, "evaluate_every", whole(2), "a whole number from 2, to compare gradients")
        divides = f"a divisor of steps={self.steps}"
        check(self, "evaluate_every", lambda window: self.steps % window == 0, divides)
        rates = tuple_of(positive, distinct=True)
        check(self, "learning_rates", rates, "a tuple of distinct positive numbers")
        seeds = tuple_of(whole(0))  # as large as an integer of netCDF-3
        seeds_needed = f"a tuple of distinct whole numbers from 0 to {LARGEST_WHOLE}"
        check(self, "seeds", lambda s: seeds(s) and len({*s}) == len(s), seeds_needed)
        check(self, "schedule", get_args(Schedule).__contains__, f"one of {get_args(Schedule)}")
        before = f"a whole number from 0, below steps={self.steps}"
        check(self, "warmup", whole(0, self.steps - 1), before)
        check(
            self, "clip", lambda clip: clip is None or positive(clip), "a positive number, or None"
        )
        check(self, "margin", positive, "a positive number, in the unit of the score")
        self._check_swept()
        check(self, "norms", lambda _: _are_told_apart(self), "labels that no network has")
        check_flags(self, "data_parallel")
        check(
            self,
            "data_parallel",
            lambda x: not (x and any(map(is_random, self.norms.values()))),
            "norms without a key such as Noisy's: its noise would be the same on every device",
        )

    def _check_values(self) -> None:
        loads = "digits, mnist, binary-mnist, or Digits(), Mnist(), Arrays(..), Npz(..) or Csv(..)"
        check(self, "data", _is_value_with("load"), loads)
        labelled = "a mapping of labels to norms"
        check(self, "norms", lambda n: isinstance(n, Mapping) and len(n) > 0, labelled)
        check(self, "norms", text.are_labels, text.LABELS)
        for value in self.norms.values():
            Norm.of(value)
        networks_needed = "MLP(widths, activation), or a function of a norm"
        check(self, "network", _is_function, networks_needed)
        steps = f"one of {tuple(optimizers.WORDS)}, or a function of a learning rate"
        check(self, "optimizer", _is_function, steps)
        judges = f"one of {tuple(tasks.WORDS)}, or an Objective(..)"
        check(self, "task", _is_value_with("loss", "score", "overall"), judges)

    def _check_swept(self) -> None:
        several = "or a tuple of distinct ones"
        for field, owner, allows in (
            ("init_std", "network", positive),
            ("weight_decay", "optimizer", not_negative),
        ):
            if getattr(self, field) is None:
                continue
            number = "a positive number" if allows is positive else "a number from 0"
            check(self, field, one_or_several(allows), f"{number}, {several}, or None")
            has = hasattr(getattr(self, owner), field)
            check(self, field, lambda _, has=has: has, f"a {owner} with such a field")
        check(self, "momentum", one_or_several(fraction), f"a number from 0 to 1, {several}")
        check(self, "epsilon", one_or_several(positive), f"a positive number, {several}")


DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Study)
    if field.default is not dataclasses.MISSING
}


def swept(study: Study, norm: object) -> list[dict[str, float]]:
    """Returns what tells apart the networks that one of the norms stands for.

    Every combination of what SWEPT has several values of, in the study or in its optimizer; one
    without any where there are none.
    `momentum` and `epsilon` are a variant's alone.
    """
    fields = [f for f in SWEPT if is_variant(norm) or f not in ("momentum", "epsilon")]
    each = {field: _values(study, field) for field in fields}
    several = {field: values for field, values in each.items() if isinstance(values, tuple)}
    return [dict(zip(several, values)) for values in itertools.product(*several.values())]


def _values(study: Study, field: str) -> Any:
    """Returns what the study, or else its optimizer, has in a field of SWEPT."""
    own = getattr(study, field, None)
    if own is None and field in optimizers.NUMBERS:
        return getattr(study.optimizer, optimizers.NUMBERS[field], None)
    return own


def networks_of(study: Study) -> dict[str, tuple[str, dict[str, float]]]:
    """Returns all networks of `study` by name: label in `norms` with `swept` values, and both."""
    networks = {}
    for label, norm in study.norms.items():
        for values in swept(study, norm):
            networks[name_of(label, values)] = label, values
    return networks


def name_of(label: str, values: Mapping[str, float]) -> str:
    """Returns a network's name: `batch norm, epsilon=0.1`."""
    return ", ".join([label, *(f"{field}={value!r}" for field, value in values.items())])


def as_json(study: Study) -> dict[str, Any]:
    """Returns the fields as JSON holds them; what is no number or text, as a config writes it."""
    fields = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    values = {name: show(fields[name]) for name in ("data", "network", "optimizer", "task")}
    norms = {label: None if norm is None else show(norm) for label, norm in study.norms.items()}
    return fields | values | {"norms": norms}


def _read(text: str) -> Any:
    """Returns the value that `text` writes, as a config would after importing what is here."""
    import experiments.study as namespace

    try:
        return eval(text, {"__builtins__": {}}, vars(namespace))
    except Exception as error:
        raise ValueError(f"{text} cannot be read ({type(error).__name__}: {error})") from error


def _is_value_with(*methods: str) -> Callable[[Any], bool]:
    return lambda value: (
        not isinstance(value, type) and all(callable(getattr(value, m, None)) for m in methods)
    )


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, str)


def _are_told_apart(study: Study) -> bool:
    expected = sum(len(swept(study, norm)) for norm in study.norms.values())
    return len(networks_of(study)) == expected

"""Names and labels that every file holds, every terminal shows, and every table gives back."""

import unicodedata
from collections.abc import Collection, Iterable

PLAIN = "printable text"
LABELS = (
    "labels of printable text, different in more than case, that no reader of metrics.csv takes "
    "for a number, a missing value (None, NA, null, nan) or a formula (=, +, -, @ first)"
)

# What pandas.read_csv makes NaN or a truth value of; R's and Julia's readers know fewer.
_OTHER_THAN_TEXT = {
    "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "True", "TRUE", "true", "False", "FALSE", "false",
}  # fmt: skip


def counted(number: int, noun: str) -> str:
    """Returns `1 seed`, `2 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_plain(value: object) -> bool:
    """Whether `value` is text without controls, halves of characters, or spaces at its ends."""
    return isinstance(value, str) and value.isprintable() and value == value.strip() != ""


def are_labels(values: Collection[object]) -> bool:
    """Whether `values` are plain texts that a table gives back, and that readers tell apart."""
    return all(map(_is_label, values)) and are_told_apart(map(str, values))


def are_told_apart(texts: Iterable[str]) -> bool:
    """Whether no two of `texts` look the same, or are one name to a file system without case."""
    seen = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    return len(set(seen)) == len(seen)


def _is_label(value: object) -> bool:
    return is_plain(value) and not (
        str(value) in _OTHER_THAN_TEXT or str(value)[0] in "=+-@" or _is_number(str(value))
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

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
    """Tells whether `value` is text without controls, half characters, or spaces at its ends."""
    return isinstance(value, str) and value.isprintable() and value == value.strip() != ""


def are_labels(values: Collection[object]) -> bool:
    """Tells whether `values` are plain texts that tables give back and readers tell apart."""
    return all(map(_is_label, values)) and are_told_apart(map(str, values))


def are_told_apart(texts: Iterable[str]) -> bool:
    """Tells whether no two of `texts` look alike, or are one name where case does not count."""
    folded = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    return len(set(folded)) == len(folded)


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

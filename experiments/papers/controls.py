"""Negative controls: which of them every run of the tests measures."""

QUICK = (
    "balduzzi-plain",
    "cao-equal-margins",
    "heo-momentum",
    "kohler-rayleigh",
    "kosson-adamw-angle",
    "labatie-power",
    "lubana-apart",
)
"""Claims whose controls need no MNIST and take 11 seconds of CPU time at most, in quick form."""

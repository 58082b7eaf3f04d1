"""The study of `forked`, as a config file."""

from forked import STUDY

study = STUDY

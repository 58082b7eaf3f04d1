"""Batch norm by hand: a table of numbers, every step to the output, and a page.

In a notebook `walk("docs/people.csv")` is one table of all steps.
"""

from experiments.walkthrough.steps import MEETING as MEETING
from experiments.walkthrough.steps import Steps as Steps
from experiments.walkthrough.steps import walk as walk
from experiments.walkthrough.table import read_table as read_table

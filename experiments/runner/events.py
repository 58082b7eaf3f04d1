"""Every evaluation as TensorBoard reads it: a folder for each run, a point for each measure.

tensorboardX has the format. Its own writer keeps two threads and three files open for each run, of
which there may be hundreds.
"""

import hashlib
import math
import struct
import time
from pathlib import Path
from typing import Any

import xarray as xr
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from experiments.runner.folder import EVENTS, EVENTS_DIGITS, EVENTS_PREFIX, events_of
from experiments.runner.rows import Evaluation, evaluated, table
from experiments.system.files import remove, saving

_LONGEST = 200  # bytes of a folder's name; file systems take 255

# What protoc generates has no types.
Event: Any = vars(event_pb2)["Event"]
Summary: Any = vars(summary_pb2)["Summary"]


class Events:
    """Writes `tensorboard/` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._folder = directory, directory / EVENTS
        # Another name than last time: TensorBoard may still have that file open.
        self._name = f"{EVENTS_PREFIX}{time.time_ns():0{EVENTS_DIGITS}}"

    def begin(self, dataset: xr.Dataset, done: int) -> None:
        """Writes what was measured before, in the first `done` steps of all networks together.

        Raises:
            SaveError: when it cannot be written; so in `append`.
        """
        remove(*events_of(self._directory))
        for evaluation in evaluated(dataset, done):
            self.append(dataset, evaluation)

    def append(self, dataset: xr.Dataset, evaluation: Evaluation) -> None:
        """Adds what was measured just now; what is NaN is no point."""
        for row in table(dataset, evaluation).to_dict("records"):
            path = self._folder / run_folder(row["norm"], row["learning_rate"], row["seed"])
            points = [
                Summary.Value(tag=str(name), simple_value=value)
                for name, value in row.items()
                if str(name).split("/")[0] in dataset.data_vars and not math.isnan(value)
            ]
            event = Event(
                wall_time=time.time(), step=evaluation.step, summary=Summary(value=points)
            )
            self._write(path / self._name, event)

    def end(self, dataset: xr.Dataset) -> None:
        """Does nothing: all is written already."""

    def _write(self, path: Path, event: Any) -> None:
        with saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() == 0:
                    version = Event(wall_time=time.time(), file_version="brain.Event:2")
                    file.write(_record(version))
                file.write(_record(event))


def run_folder(norm: str, learning_rate: float, seed: int) -> Path:
    """Returns the folder of a run's points, below EVENTS."""
    label = norm.replace("%", "%25").replace("/", "%2F")
    if label.startswith("."):
        label = f"%2E{label[1:]}"
    if len(label.encode()) > _LONGEST:  # no short label has a % before other than two digits
        digest = hashlib.sha256(norm.encode()).hexdigest()[:16]
        label = f"{label.encode()[: _LONGEST - 20].decode(errors='ignore')}%~{digest}"
    return Path(label, f"lr={learning_rate},seed={seed}")


def _record(event: Any) -> bytes:
    """Returns a TFRecord: length and content, each with its checksum."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(sums) + content + next(sums)

"""A run's JSON file: what was configured, how it went, what it scored, what a task of it costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.common import result_folder
from benchmarks.quality._design import Job

Record = dict[str, Any]

_DIVERGED = "diverged"


def identity(job: Job) -> Record:
    """Return what every record begins with: which run it is of, and what it was given."""
    return {
        "study": job.study.name,
        "system": job.system.name,
        "try": job.choice,
        "protocol": job.protocol.name,
        "seed": job.seed,
        "options": list(job.options),
    }


def path_of(job: Job) -> Path:
    """Return the file of a run's record."""
    return result_folder() / "quality" / f"{job.name}.json"


def read(job: Job) -> Record | None:
    """Return a run's record, or nothing where it was not made yet."""
    file = path_of(job)
    if not file.is_file():
        return None
    found: Record = json.loads(file.read_text(encoding="utf-8"))
    return found


def write(job: Job, record: Record) -> None:
    """Write a run's record, whole or not at all."""
    file = path_of(job)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(dumped(record), encoding="utf-8")
    beside.replace(file)


def dumped(record: Record) -> str:
    """Return a record as JSON, a line for each of its parts, so that differences can be read."""
    parts = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


def is_sealed(record: Record) -> bool:
    """Return whether a run's scores beyond dev were not read."""
    return "test" not in record.get("scores", {})


def diverged(job: Job, why: str) -> Record:
    """Return the record of a try whose loss ceased to be a number."""
    return {**identity(job), _DIVERGED: why}


def has_diverged(record: Record) -> bool:
    """Return whether a try came to no scores."""
    return _DIVERGED in record


def dev(record: Record, without: tuple[str, ...] = ()) -> float:
    """Return the mean over tasks of what a run scored on dev, in percent; less than any, if it diverged."""
    return -math.inf if has_diverged(record) else mean_score(record, "dev", without)


def mean_score(record: Record, split: str, without: tuple[str, ...] = ()) -> float:
    """Return the mean over tasks, some left out, of what a run scored on a split, in percent."""
    scores = [value for task, value in record["scores"][split].items() if task not in without]
    return 100 * sum(scores) / len(scores)

"""What a finished run folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie.runtime.errors import CheckpointError
from coterie.runtime.plan import SharingPlan, StagePlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.loop.history import read_history
from coterie.training.run_files import CONFIG, DATA, METRICS, PLAN
from coterie.training.yaml_config import read_yaml

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Split to task to metric to value."""


@dataclass(frozen=True)
class Facts:
    """A finished run.

    Attributes:
        name: The run's name.
        config: Its configuration as written.
        seed: Its seed.
        sha256: Its data's checksum.
        tasks: What each task answers.
        plan: Who uses what.
        records: The history, a record an epoch.
        metrics: What the frozen model scores.
        baseline: What another run scores, to compare with.
    """

    name: str
    config: str
    seed: int
    sha256: str
    tasks: tuple[TaskSpec, ...]
    plan: SharingPlan
    records: Sequence[Mapping[str, Any]]
    metrics: Metrics
    baseline: Metrics | None

    @property
    def names(self) -> list[str]:
        """The tasks' names."""
        return [task.name for task in self.tasks]

    @property
    def splits(self) -> list[str]:
        """The splits that were scored, dev first."""
        return sorted(self.metrics, key=["dev", "test", "ood"].index)

    @property
    def best(self) -> int | None:
        """The epoch whose weights are kept."""
        return max((record["epoch"] for record in self.records if record.get("best")), default=None)

    def score(self, split: str, task: TaskSpec) -> float | None:
        """Return a task's metric on a split, where it has one."""
        return self.metrics.get(split, {}).get(task.name, {}).get(task.metric)

    def difference(self, split: str, task: TaskSpec) -> float | None:
        """Return by how much a task is better than in the baseline."""
        mine = self.score(split, task)
        other = (self.baseline or {}).get(split, {}).get(task.name, {}).get(task.metric)
        return None if mine is None or other is None else mine - other

    def worse(self, task: TaskSpec) -> bool:
        """Return whether a task has lost by sharing: it is below the baseline on every split that both know.

        One small split alone often says so by chance.
        """
        known = [self.difference(split, task) for split in self.splits]
        found = [value for value in known if value is not None]
        return bool(found) and max(found) < 0

    def mean(self, split: str) -> float | None:
        """Return the mean over tasks of the metric that they are compared by."""
        known = [self.score(split, task) for task in self.tasks]
        found = [value for value in known if value is not None]
        return sum(found) / len(found) if found else None

    def gates(self) -> list[StagePlan]:
        """Return the stages whose tasks chose by probabilities."""
        return [stage for stage in self.plan.stages if stage.gate_probabilities is not None]


def read_facts(folder: Path, baseline: Path | None = None) -> Facts:
    """Read a run folder.

    Raises:
        CheckpointError: If it, or ``baseline``, is not a finished run.
    """
    metrics = read_metrics(folder)
    try:
        config, _ = read_yaml(folder / CONFIG)
        data = json.loads((folder / DATA).read_text(encoding="utf-8"))
        plan = SharingPlan.model_validate_json((folder / PLAN).read_text(encoding="utf-8"))
        tasks = tuple(TaskSpec.model_validate(task) for task in data["tasks"])
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise CheckpointError(f"{folder} has lost a file of its run: train it again") from error
    return Facts(
        name=config["name"],
        config=(folder / CONFIG).read_text(encoding="utf-8"),
        seed=config["seed"],
        sha256=data["sha256"],
        tasks=tasks,
        plan=plan,
        records=read_history(folder),
        metrics=metrics,
        baseline=None if baseline is None else read_metrics(baseline),
    )


def read_metrics(folder: Path) -> Metrics:
    """Read what a finished run scored.

    Raises:
        CheckpointError: If the folder is not a finished run.
    """
    try:
        metrics: Metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a finished run: train it first") from error
    return metrics

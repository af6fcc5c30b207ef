"""What an export is told beside the model: what the bundle says of it, and what the bundle must show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coterie.exporter._metrics import Measuring
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import ColumnCut, Provenance, TextSpec

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Task name to split to metric name to value."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class About:
    """What a bundle says of its model.

    Attributes:
        provenance: Where the model comes from.
        name: The model's name: letters, digits, ``.``, ``_`` and ``-``.
        text: The tokenizer's file and how it is used, when the input is text.
        metrics: What each task scored; values that are not finite are left out.
        column_cut: What was cut of the model before.
    """

    provenance: Provenance
    name: str = "model"
    text: tuple[Path, TextSpec] | None = None
    metrics: Metrics = field(default_factory=dict)
    column_cut: ColumnCut | None = None

    def check(self, tasks: set[str]) -> None:
        """Refuse what cannot be said of a model with these tasks.

        Raises:
            ExportError: If the name cannot be one, or there are metrics of other tasks.
        """
        if not _NAME.fullmatch(self.name):
            raise ExportError(
                f"a model cannot be called {self.name!r}: use letters, digits, '.', '_' and '-'"
            )
        unknown = sorted(set(self.metrics) - tasks)
        if unknown:
            raise ExportError(f"there are metrics of tasks that the model does not have: {unknown}")

    def finite(self, task: str) -> dict[str, dict[str, float]]:
        """Return a task's metrics that are numbers: a split without positives has no AUC, and JSON no NaN."""
        return {
            split: {metric: float(value) for metric, value in values.items() if math.isfinite(value)}
            for split, values in self.metrics.get(task, {}).items()
        }


@dataclass(frozen=True)
class Checks:
    """What a bundle must show before it is published.

    Attributes:
        tolerance: Largest difference of a score from the reference's, relative where the score is above 1.
        share: Share of the task graphs that are asked, the others are only loaded. None: all of up to 100; of
            more, 5 %, but not fewer than 100. The router is asked about every task.
        measuring: How to score the bundle as well; in fp32 it must score as the reference does.
    """

    tolerance: float = 1e-4
    share: float | None = None
    measuring: Measuring | None = None

    def check(self) -> None:
        """Refuse checks that check nothing.

        Raises:
            ExportError: If a number is out of its range.
        """
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ExportError(
                f"a tolerance of {self.tolerance} checks nothing: give a small positive number, like 1e-4"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise ExportError(
                f"a share of {self.share} of the graphs cannot be asked: give 0.05, or 1 for all"
            )


CHECKS = Checks()

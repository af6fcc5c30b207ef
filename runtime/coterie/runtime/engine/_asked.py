"""Questions that have been checked, ready to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.tasks import TaskSpec


@dataclass(frozen=True, eq=False)
class Asked:
    """B questions about R inputs.

    Attributes:
        inputs: Each input tensor of the model by its name, [R, ...], as the graphs take them.
        row: [B] int64, the input that each question is about.
        task: [B] int64, the task that it asks.
        spec: The one task asked, whose own width the answer has; ``None`` where any task may be asked.
        number: [R] int64, what each input is counted as in the request that this is a part of.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    row: npt.NDArray[np.int64]
    task: npt.NDArray[np.int64]
    spec: TaskSpec | None = None
    number: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return B."""
        return len(self.row)

    def of_one_task(self) -> bool:
        """Return whether all of at least one question ask the same task."""
        return self.spec is not None or bool((self.task == self.task[0]).all())

    @property
    def distinct(self) -> int:
        """R, the number of inputs that the questions are about."""
        return len(next(iter(self.inputs.values())))

    @property
    def nbytes(self) -> int:
        """Bytes that the questions hold while they wait."""
        return sum([each.nbytes for each in self.inputs.values()]) + self.row.nbytes + self.task.nbytes

"""How often the tasks and blocks of one version are used, from what each run was asked."""

from __future__ import annotations

from collections import Counter
from threading import Lock

import numpy as np
import numpy.typing as npt

from coterie.runtime.plan import SharingPlan

OTHER = "other"
"""What tasks beyond the bound are counted under."""


class Usage:
    """Counts questions of each task, and of each block the questions and the runs that needed it.

    The graph does not say which of its blocks ran; the plan and the questions do. Heads are left out: each is
    its task's alone.

    Args:
        plan: The version's plan, N tasks.
        most: Tasks, and blocks, that are counted by themselves: the plan's first. Of N tasks the others are
            counted together, of the blocks not at all.
    """

    def __init__(self, plan: SharingPlan, *, most: int) -> None:
        tasks = len(plan.tasks)
        stages = [stage for stage in plan.stages if stage.kind != "head"]
        shared = [(stage, at) for stage in stages for at in range(len(stage.blocks))][:most]
        self._blocks = [stage.blocks[at].name for stage, at in shared]
        columns = {(stage.name, at): column for column, (stage, at) in enumerate(shared)}
        self._uses = np.zeros((tasks, len(shared)), dtype=bool)
        for stage in plan.stages:
            for task, used in enumerate(stage.uses):
                own = [columns[stage.name, at] for at in used if (stage.name, at) in columns]
                self._uses[task, own] = True
        self._tasks = [name if at < most else OTHER for at, name in enumerate(plan.tasks)]
        self._questions = np.zeros(tasks, dtype=np.int64)
        self._runs = np.zeros(len(shared), dtype=np.int64)
        # Several runs may end at once, each in a thread of its own.
        self._lock = Lock()

    def ran(self, task: npt.NDArray[np.int64]) -> None:
        """Take note of a run of B questions to the tasks [B]."""
        asked = np.bincount(task, minlength=len(self._questions))
        needed = self._uses[asked > 0].any(axis=0)
        with self._lock:
            self._questions += asked
            self._runs += needed

    def tasks(self) -> dict[str, int]:
        """Return the questions of every task that was asked."""
        found: Counter[str] = Counter()
        for name, questions in zip(self._tasks, self._questions.tolist(), strict=True):
            if questions:
                found[name] += questions
        return dict(found)

    def blocks(self) -> dict[str, tuple[int, int]]:
        """Return of every block that was needed the runs, and the questions."""
        runs, questions = self._runs.tolist(), (self._questions @ self._uses).tolist()
        return {
            name: (own, asked) for name, own, asked in zip(self._blocks, runs, questions, strict=True) if own
        }

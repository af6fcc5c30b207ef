"""What is resident, and how long it takes to be there, each way in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.cli._bench._engine import SessionATask
from coterie.cli._bench._questions import random_questions
from coterie.runtime import load, load_bundle
from coterie.runtime._resident import resident_bytes
from coterie.runtime.engine._asked import Asked
from coterie.runtime.errors import CoterieError

ROUTER, SESSIONS = "coterie", "a session a task"
_SECONDS = 600


@dataclass(frozen=True)
class Resident:
    """One way of holding the tasks.

    Attributes:
        bytes: Resident beyond what the interpreter and its libraries take (PSS: a page that n processes
            share counts 1/n). None where the system does not tell.
        tasks: Tasks that were loaded and asked.
        for_all: Bytes for all tasks, in proportion.
        first_answer_s: Seconds from a loaded interpreter to the first answer of a task.
    """

    bytes: int | None
    tasks: int
    for_all: int | None
    first_answer_s: float


def measure(bundle: Path, *, tasks: int, of: int, threads: int) -> dict[str, Resident]:
    """Load a bundle in both ways, each in a fresh process, and ask every task once.

    Args:
        bundle: Its folder.
        tasks: How many ordinary sessions are made.
        of: Tasks in the bundle; the engine is asked all of them.
        threads: Threads of a run.

    Raises:
        CoterieError: If such a process fails, for want of memory for example.
    """
    found = {}
    for way, count in ((ROUTER, of), (SESSIONS, tasks)):
        told = _in_a_process(bundle, way, count, threads)
        resident = told["bytes"]
        whole = None if resident is None else round(resident * of / count)
        found[way] = Resident(resident, count, whole, round(told["first_answer_s"], 3))
    return found


def _in_a_process(bundle: Path, way: str, tasks: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, str(bundle), way, str(tasks), str(threads)]
    done = subprocess.run(  # noqa: S603 - every word of the command is ours
        command, check=False, capture_output=True, text=True, timeout=_SECONDS
    )
    if done.returncode:
        raise CoterieError(
            f"the process that was to hold {way!r} ended with code {done.returncode}: with less memory, ask "
            f"fewer tasks\n{done.stderr[-500:]}"
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _hold(bundle: Path, way: str, tasks: int, threads: int) -> dict[str, Any]:
    """Load and ask in this process."""
    inputs = random_questions(load_bundle(bundle), rows=1).inputs

    def about(task: npt.NDArray[np.int64]) -> Asked:
        return Asked(inputs, np.zeros_like(task), task)

    task = np.arange(tasks)
    before, began = resident_bytes(), time.perf_counter()
    if way == ROUTER:
        engine = load(bundle, threads=threads)
        engine.answer(about(task[:1]))
        first = time.perf_counter() - began
        # Not all at once: the arena keeps what the largest run needed.
        for number in range(0, tasks, 50):
            engine.answer(about(task[number : number + 50]))
    else:
        held = load_bundle(bundle)
        SessionATask(held, 1, threads).one_by_one(about(task[:1]))
        first = time.perf_counter() - began
        every = SessionATask(held, tasks, threads)
        every.one_by_one(about(task))
    after = resident_bytes()
    return {
        "bytes": None if before is None or after is None else after - before,
        "first_answer_s": first,
    }


if __name__ == "__main__":
    print(json.dumps(_hold(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))

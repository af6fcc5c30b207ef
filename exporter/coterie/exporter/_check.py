"""Which graphs are asked before a bundle is published: all of few, a sample of many, and all that are new."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from coterie.exporter._verify import Checked, GraphSession, Reference, verify
from coterie.runtime.manifest import Parity
from coterie.training.several import Arrays

_ALL = 100
"""Up to so many task graphs are all asked."""

_SHARE = 0.05
"""Of more, so many are asked, but not fewer than ``_ALL``."""


def sample(tasks: Sequence[int], share: float | None) -> set[int]:
    """Draw the tasks whose graphs are asked, the same ones each time.

    Args:
        tasks: Task indices.
        share: How many of them, from 0 to 1 and at least one; None: see ``_ALL`` and ``_SHARE``.
    """
    if share is None:
        count = min(len(tasks), max(_ALL, math.ceil(_SHARE * len(tasks))))
    else:
        count = math.ceil(share * len(tasks))
    drawn = np.random.default_rng(0).choice(len(tasks), count, replace=False)
    return {tasks[int(place)] for place in drawn}


def check(
    checked: Checked,
    reference: Reference,
    samples: Arrays,
    *,
    tolerance: float,
    share: float | None,
    known: Mapping[str, float | None],
    on_progress: Callable[[str], None],
) -> Parity:
    """Ask a sample of the task graphs, and the router about every task; load all other graphs.

    Args:
        checked: The files.
        reference: The torch model.
        samples: Real inputs ``[n, ...]``.
        tolerance: Largest difference of a score, relative to the score where that is above 1.
        share: See ``sample``.
        known: Tasks that answer as they did in an earlier export, and the largest difference it found; None
            where it did not ask. All others are sampled by themselves too: a few new ones are all asked.
        on_progress: Called with a line of text.

    Raises:
        ParityError: If a graph's answer differs by more, or is not finite.
        ExportError: If a graph cannot be loaded or run.
    """
    names = [task.name for task in checked.tasks]
    new = [number for number, name in enumerate(names) if name not in known]
    errors = {name: error for name, error in known.items() if error is not None}
    asked = {
        number
        for number in sample(range(len(names)), share) | sample(new, share)
        if names[number] not in errors
    }
    known_graphs = f"; {len(known)} answer as in the bundle that this replaces" if known else ""
    on_progress(
        f"asking {len(asked)} of {len(names)} task graphs and the router, comparing with torch{known_graphs}"
    )
    for number in new:
        if number not in asked:
            GraphSession(checked.folder, checked.graphs[number])
    with _one_thread():
        parity = verify(checked, reference, samples, tolerance=tolerance, tasks=sorted(asked))
    errors.update(parity.tasks)
    return parity.model_copy(
        update={
            "max_abs_error": max(parity.max_abs_error, *errors.values(), 0.0),
            "graphs": len(errors) + 1,
            "tasks": errors,
        }
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: sums in another order would make another manifest of the same run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

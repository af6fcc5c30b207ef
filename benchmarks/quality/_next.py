"""Which run comes next, and which try of a system was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch

from benchmarks.quality._design import Job, Study, System, finals, tries
from benchmarks.quality._record import dev, is_sealed, read


def chosen(study: Study, system: System) -> str | None:
    """Return the name of the try that is best on dev, or nothing while one of them is missing."""
    if len(system.tries) == 1:
        return next(iter(system.tries))
    scores = {}
    for job in tries(study, system):
        record = read(job)
        if record is None:
            return None
        scores[job.choice] = dev(record)
    return max(scores, key=lambda name: scores[name])


def missing(studies: Iterable[Study], only: Iterable[str] = ()) -> Iterator[Job]:
    """Yield the runs that can be made now, in the order in which they tell most.

    All seeds of one protocol come before the next protocol, and a system's tries before its runs. A run whose
    test scores were not read when it was a try, and that was chosen since, is one of them.

    Args:
        studies: Whose.
        only: Patterns of names, as ``fdu/text*``; none stands for all.
    """
    patterns = tuple(only)
    waiting: list[tuple[tuple[int, int, int], Job]] = []
    for study in studies:
        for place, system in enumerate(study.systems):
            choice = chosen(study, system)
            jobs = tries(study, system) if choice is None else finals(study, system, choice)
            for job in jobs:
                record = read(job)
                if record is not None and (choice is None or not is_sealed(record)):
                    continue
                if patterns and not any(fnmatch(job.name, f"{pattern}*") for pattern in patterns):
                    continue
                waiting.append(((study.protocols.index(job.protocol), job.seed, place), job))
    for _, job in sorted(waiting, key=lambda each: each[0]):
        yield job

"""All measurements of one bundle, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coterie.cli._bench import _engine, _memory
from coterie.cli._bench._findings import Findings
from coterie.cli._bench._questions import given_questions, random_questions
from coterie.cli._bench._served import Served
from coterie.cli._bench._sizes import Sizes
from coterie.runtime import load
from coterie.runtime.manifest import MANIFEST

_SECONDS, _QUICK_SECONDS = 3.0, 0.5
MOST_TASKS = 50
"""Ordinary sessions that are held beside the engine, if not told otherwise: each has its own weights."""


def measure(
    bundle: Path,
    *,
    given: Any = None,
    tasks: int | None,
    threads: int,
    quick: bool,
    server: bool,
    on_progress: Callable[[str], None],
) -> Findings:
    """Measure a bundle's sizes, memory, engine and server.

    Args:
        bundle: Its folder.
        given: What to ask about, as an engine takes it; random inputs if None.
        tasks: Tasks that are asked, each with an ordinary session beside the engine; the first 50 at most,
            if None.
        threads: Threads of a run.
        quick: Measure for a sixth of the time, and leave out every other size.
        server: Whether to start a server.
        on_progress: Called with a line of text before each measurement.

    Raises:
        CoterieError: If the bundle cannot be loaded or asked.
    """
    if server:
        # Here, since it needs coterie[serve]; first, since it may not be there.
        from coterie.cli._bench import _server
    seconds = _QUICK_SECONDS if quick else _SECONDS
    engine = load(bundle, threads=threads)
    manifest, names = engine.bundle.manifest, [task.name for task in engine.tasks]
    count = min(len(names), tasks or MOST_TASKS)
    questions = random_questions(engine.bundle) if given is None else given_questions(engine.bundle, given)
    on_progress("memory, each way in a process of its own")
    memory = _memory.measure(bundle, tasks=count, of=len(names), threads=threads)
    cases = []
    on_progress(f"engine: {count} ordinary sessions are made")
    for case in _engine.measure(
        engine, questions, tasks=count, seconds=seconds, threads=threads, quick=quick
    ):
        on_progress(f"engine: {case.name}")
        cases.append(case)
    start: float | None = None
    served: Sequence[Served] = ()
    if server:
        on_progress("server: starting")
        start, served = _server.measure(
            bundle, questions, names[:count], seconds=2 * seconds, threads=threads, on_progress=on_progress
        )
    return Findings(
        name=manifest.name,
        tasks=len(names),
        asked=count,
        threads=threads,
        precision="fp32" if manifest.precision is None else manifest.precision.asked,
        inputs="random" if given is None else "given",
        sizes=Sizes.of(manifest, (bundle / MANIFEST).stat().st_size),
        memory=memory,
        cases=cases,
        server_start_s=start,
        served=served,
    )

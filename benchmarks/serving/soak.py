"""A server that is asked without a pause, on both transports, while all sorts of things happen to it.

    python -m benchmarks.serving.soak --minutes 10
    python -m benchmarks.serving.soak --minutes 1 --workers 2

One worker, or several that share its core, serve a store of versions. On the other, client processes send
single rows to 20 tasks and check the numbers of every answer: each version and each task scores each input so
that it cannot be taken for another. Meanwhile versions are deployed, rolled back, tried as a canary and
promoted, a worker is killed, clients go away in the middle of requests and answers, and one task is flooded;
at the end the server is told to stop under load.

A request is accepted unless it is refused, as one is by a server that is full or stopping. Any other error,
and a connection that breaks without an answer while no worker was killed, has lost its request. What was on
its way to a worker that was killed is counted by itself; the client sends it again, as it must to any server,
and it must be answered then.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.common import write_result
from benchmarks.serving.cores import pinned
from benchmarks.serving.questions import Questions
from benchmarks.serving.soak_clients import TOLERANCE, Note, Work, asking
from benchmarks.serving.soak_script import Script, Story
from coterie.runtime import load
from coterie.runtime.serving import running_server
from coterie.runtime.store import Store

SETTLED = 5.0
"""Seconds after which every worker has followed a change of the store."""
BROKEN = 5.0
"""Seconds after a kill in which a broken connection is of the killed worker."""
PROMISED = 2.0
SHOWN = 20
REFUSALS = ("429", "503", "RESOURCE_EXHAUSTED", "UNAVAILABLE")


def soak(
    bundles: Sequence[Path],
    folder: Path,
    *,
    seconds: float,
    pause: float,
    processes: int = 2,
    rate: float = 200.0,
    each: int = 16,
    cores: tuple[int, int] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Let everything happen for so long, and return what came of all requests.

    Args:
        bundles: Over one input of numbers, with the same tasks, at least two.
        folder: An empty one, for the store.
        seconds: How long; every event happens at least once.
        pause: Seconds between two events.
        processes: That ask.
        rate: Requests a second in all, when answers come at once.
        each: Inputs of each task.
        cores: The workers', and that of all who ask; without them they share what there is.
        settings: Of the server.
    """
    store = Store.create(folder / "store")
    store.switch(store.add(bundles[0]))
    first = load(bundles[0], threads=1).bundle
    spec, tasks = first.manifest.inputs[0], tuple(task.name for task in first.tasks)
    rows = Questions(tasks, spec.name, [dim or 1 for dim in spec.shape[1:]], each=each).rows
    expected = expectations(bundles, rows)
    settings = {"poll_seconds": 0.2, "threads": 1, "workers": 2} | settings
    with ExitStack() as stack:
        server_of = running_server(store.path, **settings)
        addresses = stack.enter_context(server_of) if cores is None else pinned(stack, cores, server_of)
        clients = 8
        works = [
            Work(addresses, tasks, spec.name, rows, expected, clients, processes * clients / rate, seed=seed)
            for seed in range(processes)
        ]
        script = Script(store, bundles, addresses, works[0], workers=settings["workers"], pause=pause)
        with asking(works) as notes:
            script.run(seconds)
            answering = len(script.workers())
            server = [psutil.Process(addresses.pid), *psutil.Process(addresses.pid).children(recursive=True)]
            stopped = time.monotonic()
            os.kill(addresses.pid, signal.SIGTERM)
            time.sleep(0.2)
        _, left = psutil.wait_procs(server, timeout=30)
        stopping = time.monotonic() - stopped
    return judged(notes.all, script.story, stopped) | {
        "workers": settings["workers"],
        "workers_at_last": answering,
        "seconds_to_stop": round(stopping, 2),
        "processes_left": len(left),
    }


def expectations(bundles: Sequence[Path], rows: Any) -> Any:
    """Return what each bundle scores each task's inputs, ``[bundles, N, K, C]``; all can be told apart."""
    count, each = rows.shape[:2]
    inputs = rows.reshape(count * each, *rows.shape[2:])
    row, task = np.repeat(np.arange(count * each), count), np.tile(np.arange(count), count * each)
    scored = [load(bundle, threads=1).predict_many(inputs, row, task).scores for bundle in bundles]
    # Of each bundle every task's scores of every input, also of the inputs that it is not asked.
    everything = np.stack(scored).reshape(len(bundles), count * each, count, -1)
    for own in range(count):
        asked = everything[:, own * each : (own + 1) * each]
        flat = asked.transpose(1, 0, 2, 3).reshape(each, len(bundles) * count, -1)
        gaps = np.abs(flat[:, :, None] - flat[:, None]).max(axis=-1) + np.eye(len(bundles) * count)
        if gaps.min() <= 2 * TOLERANCE:
            raise SystemExit("two versions or two tasks score an input alike: the answers tell nothing")
    return np.stack([everything[:, t * each : (t + 1) * each, t] for t in range(count)], axis=1)


def judged(notes: Sequence[Note], story: Story, stopped: float) -> dict[str, Any]:
    """Return the counts and the times."""
    verdicts = [(note, _verdict(note, story, stopped)) for note in notes]
    counts = Counter(verdict for _, verdict in verdicts)
    killed = Counter(_was_killed(when, story) for note in notes for when in note.broken if when < stopped)
    before, during = _times(notes, story.quiet, story), _times(notes, story.floods, story)
    flooding = Counter(note.outcome for note in story.flood_notes)
    wrong = sum(note.outcome == "answered" and not _is_right(note, story) for note in story.flood_notes)
    return {
        "requests": len(notes),
        "outcomes": dict(counts),
        "lost": counts["lost"],
        "wrong": counts["wrong"] + wrong,
        "sent_again_after_kills": killed[True],
        "lost_requests": [_shown(note, story, stopped) for note, verdict in verdicts if verdict == "lost"][
            :SHOWN
        ],
        "events": dict(Counter(name for _, name in story.events)),
        "versions": len(story.bundles),
        "seconds_to_another_worker": [round(seconds, 2) for _, seconds in story.kills],
        "flood": {
            "requests": dict(flooding),
            "rows_a_request": "all inputs of the task",
            "p99_ms_before": round(1000 * before, 2),
            "p99_ms_during": round(1000 * during, 2),
            "ratio": round(during / before, 2),
            "promised": PROMISED,
        },
    }


def _was_killed(when: float, story: Story) -> bool:
    """Return whether a connection that broke was a killed worker's."""
    return any(kill <= when <= kill + BROKEN for kill, _ in story.kills)


def _verdict(note: Note, story: Story, stopped: float) -> str:
    if any(when < stopped and not _was_killed(when, story) for when in note.broken):
        return "lost"  # even if it was answered when it was sent again
    if note.outcome == "answered":
        return "right" if _is_right(note, story) else "wrong"
    if note.outcome not in REFUSALS:
        return "lost" if note.sent < stopped else "sent to a server that was told to stop"
    return f"refused: {note.outcome}" + (", stopping" if note.sent + note.seconds >= stopped else "")


def _shown(note: Note, story: Story, stopped: float) -> dict[str, Any]:
    """Return where to look for what became of a request."""
    before = [(note.sent - when, name) for when, name in story.events if when <= note.sent]
    after, event = before[-1] if before else (note.sent - story.served[0][0], "start")
    return {
        "sent": f"{after:.2f} s after: {event}",
        "before_the_end": f"{stopped - note.sent:.3f} s",
        "outcome": note.outcome,
        "broken_after": [round(when - note.sent, 3) for when in note.broken],
        "why": note.why,
    }


def _is_right(note: Note, story: Story) -> bool:
    """Return whether the numbers are the version's, and the version one that was served at the time."""
    after = note.sent + note.seconds
    changes = story.served
    ends = [when + SETTLED for when, _ in changes[1:]] + [float("inf")]
    allowed = [
        versions
        for (began, versions), end in zip(changes, ends, strict=True)
        if began <= after and end >= note.sent
    ]
    return story.bundles.get(note.version) == note.bundle and any(note.version in each for each in allowed)


def _times(notes: Sequence[Note], windows: Sequence[tuple[float, ...]], story: Story) -> float:
    """Return the 99th percentile of the answers in some windows, the flooded tasks' left out."""
    flooded = {window[:2]: flood[2] for window, flood in zip(windows, story.floods, strict=True)}
    times = [
        note.seconds
        for note in notes
        for (began, end), task in flooded.items()
        if note.outcome == "answered" and began <= note.sent < end and note.task != task
    ]
    return float(np.quantile(times, 0.99)) if times else float("nan")


def main() -> None:
    """Run, print and write."""
    # Only here: client processes import this module again, and need no torch.
    from benchmarks.export.planted import planted_model
    from benchmarks.serving.engine import export_untrained

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two events")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=1, help="that share their core")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the workers', the clients'")
    chosen = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundles = [
            export_untrained(
                planted_model(20, clusters=(5,), experts=20, experts_per_task=5, width=128, seed=seed),
                folder / str(seed),
            )
            for seed in range(2)
        ]
        cores = (chosen.cores[0], chosen.cores[1])
        result = soak(
            bundles,
            folder,
            seconds=60 * chosen.minutes,
            pause=chosen.pause,
            rate=chosen.rate,
            workers=chosen.workers,
            cores=cores if hasattr(os, "sched_setaffinity") else None,
        )
    Console().print(result)
    name = "serving_soak" if chosen.workers == 1 else f"serving_soak_{chosen.workers}_workers"
    print(write_result(name, {"minutes": chosen.minutes, "rate": chosen.rate, **result}))
    unlike = result["workers"] != result["workers_at_last"]
    sys.exit(bool(result["lost"] or result["wrong"] or result["processes_left"] or unlike))


if __name__ == "__main__":
    main()

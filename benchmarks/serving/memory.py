"""Resident memory (PSS) of an engine over 1,000 tasks, against a session for each task. Linux only.

python -m benchmarks.serving.memory
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result

TASKS, WIDTH = 1000, 512
MEBI = 1024 * 1024


def resident() -> dict[str, int]:
    """Return what this process holds in memory, in bytes.

    Returns:
        ``bytes``: its proportional set size: a page that n processes share counts 1/n. ``own``: what is
        mapped from no file, and so not shared with another process that serves the same bundle.
    """
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        found[name] = rest
    return {key: int(found[name].split()[0]) * 1024 for key, name in (("bytes", "Pss"), ("own", "Anonymous"))}


def above(before: dict[str, int]) -> dict[str, int]:
    """Return what this process holds more than before."""
    return {key: value - before[key] for key, value in resident().items()}


WAYS: dict[str, dict[str, Any]] = {
    "coterie": {"mode": "auto"},
    "the router": {"mode": "router"},
    "the router, shared": {"mode": "router", "weights": "shared"},
    "task sessions, shared": {"mode": "task", "weights": "shared", "session_bytes": 1024 * MEBI},
}
ORDINARY = "a session a task"


def ask(folder: Path, way: str, sessions: int) -> dict[str, Any]:
    """Load a bundle in one way, ask it, and return what is resident; in a process of its own."""
    import numpy as np

    from coterie.runtime import load

    before = resident()
    if way == ORDINARY:
        import onnxruntime as ort

        bundle = load(folder, mode="task", threads=1).bundle
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        held = []
        for entry in bundle.manifest.tasks[:sessions]:
            session = ort.InferenceSession(str(bundle.graph(entry.graph)), options, ["CPUExecutionProvider"])
            session.run(None, {"inputs": np.ones((1, 64), np.float32)})
            held.append(session)
        return {**above(before), "sessions": len(held)}
    engine = load(folder, threads=1, **WAYS[way])
    engine.warm()
    inputs = np.ones((1, 64), np.float32)
    for first in range(0, TASKS, 50):
        tasks = np.arange(first, first + 50)
        engine.predict_many(inputs, np.zeros(50, np.int64), tasks)
    for task in [*range(100)] * 4:
        # Often enough for each to get a session of its own, were there room for all.
        engine.predict([task], inputs)
    return {**above(before), "sessions": TASKS if way.startswith("task") else 1}


def measure(folder: Path, way: str, sessions: int) -> dict[str, Any]:
    """Measure one way in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.serving.memory", "--child", way, str(folder), str(sessions)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--sessions", type=int, default=50, help="ordinary sessions that are really made")
    chosen = parser.parse_args()
    if chosen.child:
        way, folder, sessions = chosen.child
        print(json.dumps(ask(Path(folder), way, int(sessions))))
        return
    from benchmarks.export.planted import planted_inputs, planted_model, task_by_task
    from coterie.exporter import About, export
    from coterie.runtime.manifest import Provenance

    with TemporaryDirectory() as scratch:
        folder, model = Path(scratch) / "bundle", planted_model(TASKS, width=WIDTH)
        manifest = export(
            model,
            folder,
            reference=task_by_task(model),
            samples=planted_inputs(),
            about=About(Provenance(coterie="0")),
        )
        weights = manifest.sizes["weights"]
        found = {way: measure(folder, way, chosen.sessions) for way in (*WAYS, ORDINARY)}
    bound = 1.3 * weights + 150 * MEBI
    table = Table(
        "way", "sessions", "MiB above the start", "of it not mapped", "of the weights", "for 1,000 tasks, MiB"
    )
    for way, result in found.items():
        whole = result["bytes"] * (TASKS / result["sessions"] if way == ORDINARY else 1)
        result["for_all_tasks"] = round(whole)
        table.add_row(
            way,
            str(result["sessions"]),
            f"{result['bytes'] / MEBI:.0f}",
            f"{result['own'] / MEBI:.0f}",
            f"{result['bytes'] / weights:.2f}",
            f"{whole / MEBI:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"weights: {weights / MEBI:.0f} MiB; promised for coterie: at most {bound / MEBI:.0f} MiB")
    write_result("serving_memory", {"tasks": TASKS, "weights": weights, "bound": round(bound), "ways": found})


if __name__ == "__main__":
    main()

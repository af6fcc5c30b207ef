"""A thousand tasks on a small machine: cluster layers, and a hundred experts. What is found, at what cost?

python -m benchmarks.training.thousand
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import adjusted_rand_score

from benchmarks.common import write_result
from coterie.training import Run, RunConfig, Watcher, load_data, train

TASKS = 1000
EXPERTS = 100
CLUSTERS = (5, 20, 50)
DATA = {"kind": "planted", "tasks": TASKS, "width": 8, "dev_rows": 10, "test_rows": 20}
TRUNK = {"kind": "hard", "name": "trunk", "block": {"kind": "linear", "width": 16, "activation": "tanh"}}
BLOCK = {"kind": "linear", "width": 16, "activation": "tanh"}
EXPERT = {
    "kind": "gated",
    "name": "experts",
    "experts": EXPERTS,
    "block": {"kind": "linear", "width": 8, "activation": "tanh"},
}


def cluster_layers(**options: Any) -> list[dict[str, Any]]:
    """A cluster layer for each planted one."""
    return [
        {"kind": "cluster", "name": f"cluster{number}", "clusters": clusters, "block": BLOCK, **options}
        for number, clusters in enumerate(CLUSTERS, start=1)
    ]


def settings() -> dict[str, dict[str, Any]]:
    """Return what is trained: data, stages and trainer options of each setting."""
    clusters = {**DATA, "clusters": CLUSTERS, "train_rows": 200}
    experts = {
        **DATA,
        "experts": EXPERTS,
        "experts_per_task": 1,
        "expert_sets": EXPERTS,
        "outputs": 8,
        "train_rows": 50,
    }
    gates: dict[str, dict[str, Any]] = {
        "learned": {"gates": "learned", "density_penalty": 0.2},
        "dselect_k": {"gates": "dselect_k", "k": 1},
        "one": {"gates": "one"},
    }
    found: dict[str, dict[str, Any]] = {
        "three cluster layers": {"data": clusters, "stages": [TRUNK, *cluster_layers()], "epochs": 10},
        "three cluster layers, by gradients": {
            "data": clusters,
            "stages": [TRUNK, *cluster_layers(by="gradients")],
            "epochs": 10,
        },
    }
    for name, options in gates.items():
        for grouped in (3, 0):
            start = "grouped" if grouped else "undecided"
            found[f"a hundred experts, gates: {name}, {start}"] = {
                "data": experts,
                "stages": [{**EXPERT, **options, "grouped": grouped}],
                "epochs": 16,
                "lr": 1e-2,
            }
    return found


class Clock(Watcher):
    """Notes how long steps take, on the clock and on the processor."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.steps: list[tuple[float, float]] = []
        self._last = (time.perf_counter(), time.process_time())

    def batch(self, *, loss: float, density: float | None) -> None:  # noqa: ARG002
        """One step more."""
        now = (time.perf_counter(), time.process_time())
        self.steps.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def epoch(self, record: dict[str, Any]) -> None:
        """Say how it goes."""
        self._console.print(
            record["epoch"], round(record["seconds"], 1), record["stages"], record["dev"]["metric"]
        )


def found_in(run: Run, truth: Any) -> dict[str, Any]:
    """Compare the sharing that was found with the one that was planted."""
    found: dict[str, Any] = {"test_r2": round(run.mean_metric("test"), 4)}
    plan = run.model.plan()
    layers = [stage for stage in plan.stages if stage.kind == "cluster"]
    if layers:
        found["clusters"] = [len(layer.blocks) for layer in layers]
        found["ari"] = [
            round(float(adjusted_rand_score(own, layer.assignment())), 4)
            for own, layer in zip(truth.assignments, layers, strict=True)
        ]
    for stage in plan.stages:
        if stage.kind == "gated":
            used = (stage.mixing_matrix() != 0).astype(np.int64)
            shares, wanted = used @ used.T > 0, truth.experts @ truth.experts.T > 0
            pairs = len(used) * (len(used) - 1) // 2
            found["experts_used"] = len(stage.blocks)
            found["density"] = round(float(np.mean(stage.density())), 2)
            found["pairs"] = {
                "share": int((wanted.sum() - len(used)) // 2),
                "missed": int((wanted & ~shares).sum() // 2),
                "wrong": int((shares & ~wanted).sum() // 2),
                "all": pairs,
            }
    return found


def measure(setting: dict[str, Any], folder: Path, threads: int, console: Console) -> dict[str, Any]:
    """Train one setting; return what was found, and what it cost."""
    trainer = {"epochs": setting["epochs"], "batch_size": 1000, "lr": setting.get("lr", 3e-3)}
    config = RunConfig.model_validate(
        {
            "name": "thousand",
            "data": setting["data"],
            "model": {"stages": setting["stages"]},
            "trainer": {**trainer, "threads": threads},
        }
    )
    data = load_data(config.data)
    clock, began, processor = Clock(console), time.perf_counter(), time.process_time()
    run = train(config, folder, dataset=data, watcher=clock)
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    steps = np.median(np.array(clock.steps), axis=0) * 1000
    return {
        **found_in(run, data.truth),
        "steps": len(clock.steps),
        "minutes": round(wall / 60, 2),
        "processor_minutes": round(processor / 60, 2),
        "step_milliseconds": round(float(steps[0]), 1),
        "step_processor_milliseconds": round(float(steps[1]), 1),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "threads": threads,
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(settings()), choices=list(settings()))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", type=Path, help="folder in which the runs are kept, to export one")
    chosen = parser.parse_args()
    console, results = Console(), {}
    with TemporaryDirectory() as scratch:
        for name in chosen.only:
            folder = (chosen.keep or Path(scratch)) / name.replace(" ", "-").replace(",", "")
            results[name] = measure(settings()[name], folder, chosen.threads, console)
            console.print(name, results[name])
            write_result("thousand", {"settings": results})


if __name__ == "__main__":
    main()

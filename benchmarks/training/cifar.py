"""CIFAR-100 as twenty tasks, 12,500 images: who shares a convolution stack with whom, and what it costs.

python -m benchmarks.training.cifar --train cifar100-train.npz --test cifar100-test.npz --runs runs/cifar

One system after the other; a system whose run is finished is not trained again, and one that was interrupted
goes on. Weights and settings are chosen on dev; test is read once, of the frozen model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.steps import training_step
from coterie.training import Run, load_run, load_run_config, train

SYSTEMS = ("cifar-trunk", "cifar-independent", "ungated", "routing", "multi-clustering")
DATA = Path("examples/cifar100/data.yaml")


def trained(name: str, arguments: argparse.Namespace) -> Run:
    """Return a system's finished run; train it first where there is none."""
    folder = Path(arguments.runs) / name
    if (folder / "metrics.json").is_file():
        return load_run(folder)
    options = [
        f"data.path.train={arguments.train}",
        f"data.path.test={arguments.test}",
        f"trainer.precision={arguments.precision}",
        "trainer.threads=1",
    ]
    return train(load_run_config(name, data=DATA, overrides=options), folder)


def row(run: Run) -> dict[str, Any]:
    """Return what the table says of a run."""
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text("utf-8").splitlines()]
    plan = run.model.plan()
    stage = plan.stages[-2]
    used = [sum(each.blocks[i].parameters for each in plan.stages for i in each.uses[t]) for t in range(20)]
    return {
        "test": round(100 * run.mean_metric("test"), 2),
        "dev": round(100 * run.mean_metric("dev"), 2),
        "blocks": stage.trained_blocks,
        "blocks_kept": len(stage.blocks),
        "blocks_a_task": float(stage.density().mean()),
        "parameters": sum(each.numel() for each in run.model.parameters()),
        "parameters_a_task": sum(used) // len(used),
        "epochs": len(history),
        "precision": run.config.trainer.precision,
        "minutes": round(sum(epoch["seconds"] for epoch in history) / 60, 1),
    }


def step(run: Run) -> Callable[[], None]:
    """Return a training step of a finished model: forward, backward, update, with its gates as they are."""
    model, settings = run.model.train(), run.config.trainer
    model.compute_in(settings.precision)
    pixels = torch.randint(256, (settings.batch_size, *run.data.inputs[0].shape[1:]), dtype=torch.uint8)
    return training_step(
        model, pixels, classes=5, estimator=settings.gate_estimator, samples=settings.gate_samples
    )


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="cifar100-train.npz")
    parser.add_argument("--test", type=Path, required=True, help="cifar100-test.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar"))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=150)
    runs = {name: trained(name, arguments) for name in arguments.systems}
    rows = {name: row(run) for name, run in runs.items()}
    torch.manual_seed(0)
    for name, seconds in side_by_side({name: step(run) for name, run in runs.items()}, rounds=5).items():
        rows[name]["ms_a_step"] = round(1e3 * seconds, 1)
    table = Table("system", *next(iter(rows.values())), box=None)
    for name, values in rows.items():
        table.add_row(name, *map(str, values.values()))
    console.print(table)
    what = "CIFAR-100, 20 tasks of 5 classes, 12,500 training images, one seed, one thread; accuracy in %"
    console.print(f"written: {write_result('cifar100', {'what': what, 'systems': rows})}")


if __name__ == "__main__":
    main()

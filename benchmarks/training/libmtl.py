"""Four architectures of LibMTL against the same ones here: same digits, encoders, optimiser and epochs.

python -m benchmarks.training.libmtl

LibMTL is installed into an environment of its own under ``--work``, which borrows this one's torch. Where
that is not possible, the benchmark says why and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from coterie.training import Run, RunConfig, train
from coterie.training.data import load_data

VERSION = "1.1.5"
WIDTH, EXPERTS, LAYERS = 64, 4, 4
LR, BATCH = 1e-3, 64
HARD = {"kind": "mlp", "widths": [WIDTH, WIDTH]}
LAYER = {"kind": "linear", "width": WIDTH}
STAGES: dict[str, dict[str, Any]] = {
    "HPS": {"kind": "hard", "block": HARD},
    "MMoE": {"kind": "input_gated", "experts": EXPERTS, "block": HARD},
    "DSelect_k": {
        "kind": "input_gated",
        "gate": "dselect_k",
        "k": 2,
        "experts": EXPERTS,
        "entropy": 1e-6,
        "block": HARD,
    },
    # Its first layer stands before the first unit, as in LibMTL's: two affine maps.
    "Cross_stitch": {"kind": "stitched", "layers": [HARD, *[LAYER] * (LAYERS - 1)]},
}
TOLERANCE = 2.0
"""Percentage points that ours may end below."""


def environment(work: Path) -> tuple[Path | None, str]:
    """Return the interpreter of LibMTL's environment, made when it is not there, or None and why not."""
    folder = work / f"libmtl-{VERSION}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        run = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        own = Path(subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip())
        (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", f"LibMTL=={VERSION}"]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, f"LibMTL {VERSION} cannot be installed: {done.stderr.strip().splitlines()[-1:]}"
        (folder / "ready").touch()
    return python, ""


def configure(name: str, seed: int, epochs: int) -> RunConfig:
    """Return ours of that name."""
    return RunConfig.model_validate(
        {
            "name": name,
            "seed": seed,
            "data": {"kind": "digits"},
            "model": {"stages": [STAGES[name]], "head": {"alike": False}},
            "trainer": {"epochs": epochs, "batch_size": BATCH, "lr": LR, "threads": 1},
        }
    )


def write_arrays(path: Path) -> None:
    """Write the digits for LibMTL: standardised images, and each task's answers."""
    data = load_data(configure("HPS", 0, 1).data)
    arrays: dict[str, Any] = {"widths": np.array([task.width for task in data.tasks])}
    train_images = np.asarray(data.splits["train"].inputs.values)
    mean, deviation = train_images.mean(0), train_images.std(0)
    deviation[deviation == 0] = 1
    for name, split in data.splits.items():
        answers = np.zeros((len(split.inputs), len(data.tasks)), dtype=np.int64)
        answers[split.row, split.task] = split.target[:, 0]
        arrays[f"{name}_inputs"] = (np.asarray(split.inputs.values) - mean) / deviation
        arrays[f"{name}_answers"] = answers
    np.savez(path, **arrays)


def theirs(python: Path, arrays: Path, name: str, seed: int, epochs: int) -> dict[str, float]:
    """Train LibMTL's of that name in its own environment."""
    settings = {
        "arrays": str(arrays),
        "architecture": name,
        "seed": seed,
        "epochs": epochs,
        "width": WIDTH,
        "hidden": WIDTH,
        "experts": EXPERTS,
        "layers": LAYERS,
        "lr": LR,
        "batch": BATCH,
    }
    script = Path(__file__).with_name("libmtl_side.py")
    run = [str(python), "-W", "ignore", str(script), json.dumps(settings)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def ours(work: Path, name: str, seed: int, epochs: int) -> dict[str, float]:
    """Train ours of that name."""
    folder = work / f"{name}-{seed}-{epochs}"
    run: Run = train(configure(name, seed, epochs), folder)
    lines = (folder / "history.jsonl").read_text("utf-8").splitlines()
    return {
        "test": 100 * run.mean_metric("test"),
        "epoch_seconds": statistics.median(json.loads(line)["seconds"] for line in lines),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
    }


def main() -> None:
    """Measure, print, and fail where ours is worse by more than ``TOLERANCE`` points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/libmtl"), help="where runs and LibMTL go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    python, reason = environment(arguments.work)
    if python is None:
        Console().print(f"skipped: {reason}")
        return
    arrays = arguments.work / "digits.npz"
    write_arrays(arrays)
    table = Table("architecture", "LibMTL", "coterie", "seconds an epoch", "", box=None)
    rows, behind = [], []
    for name in STAGES:
        each = [
            (
                theirs(python, arrays, name, seed, arguments.epochs),
                ours(arguments.work, name, seed, arguments.epochs),
            )
            for seed in range(arguments.seeds)
        ]
        means = [
            {key: statistics.mean(run[key] for run in side) for key in side[0]}
            for side in zip(*each, strict=True)
        ]
        other, own = means
        rows.append({"architecture": name, "libmtl": rounded(other), "coterie": rounded(own)})
        table.add_row(
            name,
            f"{other['test']:.2f}",
            f"{own['test']:.2f}",
            f"{other['epoch_seconds']:.2f}",
            f"{own['epoch_seconds']:.2f}",
        )
        if own["test"] < other["test"] - TOLERANCE:
            behind.append(name)
    Console().print(table)
    what = (
        f"twenty tasks on digits, mean test accuracy of {arguments.seeds} seeds, {arguments.epochs} epochs "
        "of which the best on dev counts; one thread"
    )
    path = write_result("libmtl", {"what": what, "libmtl_version": VERSION, "architectures": rows})
    Console().print(f"written: {path}")
    if behind:
        raise SystemExit(f"more than {TOLERANCE} points below LibMTL: {', '.join(behind)}")


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """Return numbers as a person reads them."""
    return {key: round(number, 3) for key, number in numbers.items()}


if __name__ == "__main__":
    main()

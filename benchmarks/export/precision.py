"""int8, fp16 and bf16 against fp32: bytes, points lost, and time.

python -m benchmarks.export.precision --data.path fdu-mtl.parquet

Trains the presets ``text`` and ``digits`` with the command line, resuming what is there, and exports each in
every precision, in int8 with the bound of half a point a task. Sizes are of all weights. Points are lost on
dev, where they are bounded, and on test, which nothing was chosen on. Times are of the router, one thread,
every question about an input of its own, in turn; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from coterie.exporter import export_run
from coterie.exporter._builder import GraphBuilder, serialize
from coterie.exporter._precision import _int8
from coterie.exporter._weights import WeightFile
from coterie.runtime.manifest import Manifest, Precision
from coterie.training import Run, load_run

BOUND = 0.5
SIZES = (64, 128, 256, 512, 1024)
ROWS = (1, 64)
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "fp16", "bf16")


def train(preset: str, folder: Path, *options: str) -> Run:
    """Train by the command line, as a user would."""
    words = [sys.executable, "-m", "coterie.cli", "train", preset, "--run", str(folder), *options]
    subprocess.run(words, check=True)
    return load_run(folder)


def session(path: Path | bytes) -> ort.InferenceSession:
    """Return a session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    given = path if isinstance(path, bytes) else str(path)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def compare(run: Run, folder: Path, rounds: int) -> dict[str, Any]:
    """Export a run in every precision; return sizes, losses and times."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        precision: export_run(
            run,
            folder / precision,
            precision=precision,
            max_metric_drop=BOUND if precision == "int8" else None,
            overwrite=True,
        )
        for precision in PRECISIONS
    }
    routers = {precision: session(folder / precision / made[precision].router) for precision in PRECISIONS}
    times = {}
    for rows in ROWS:
        samples = run.samples()[np.arange(rows) % len(run.samples())]
        feeds = {
            run.data.inputs[0].name: samples,
            "row": np.arange(rows),
            "task": np.arange(rows) % len(run.data.tasks),
        }
        calls = {name: partial(router.run, ["scores"], feeds) for name, router in routers.items()}
        seconds = side_by_side(calls, rounds=rounds, warmup=5)
        times[str(rows)] = {
            name: {"us": round(1e6 * own, 1), "per_fp32": round(own / seconds["fp32"], 3)}
            for name, own in seconds.items()
        }
    weights = made["fp32"].sizes["weights"]
    return {
        "weights": {
            name: {
                "bytes": manifest.sizes["weights"],
                "per_fp32": round(manifest.sizes["weights"] / weights, 4),
            }
            for name, manifest in made.items()
        },
        "int8": losses(made["int8"], made["fp32"]),
        "score_difference": {
            name: manifest.precision.score_difference
            for name, manifest in made.items()
            if manifest.precision is not None
        },
        "router_us": times,
    }


def losses(int8: Manifest, fp32: Manifest) -> dict[str, Any]:
    """Return what an int8 bundle's tasks lose, in points, and how many blocks are what."""
    if int8.precision is None:
        raise SystemExit("the bundle says nothing of its precision")
    lost = {}
    for entry, other in zip(int8.tasks, fp32.tasks, strict=True):
        metric = entry.task.metric
        lost[entry.task.name] = 100 * (other.measured["test"][metric] - entry.measured["test"][metric])
    drops = int8.precision.drops
    return {
        "bound": BOUND,
        "blocks": dict(Counter(int8.precision.blocks.values())),
        "costly": int8.precision.costly,
        "dev_most_lost_by_a_task": max(drops.values()),
        "dev_mean_lost": round(float(np.mean(list(drops.values()))), 4),
        "test_most_lost_by_a_task": round(max(lost.values()), 4),
        "test_mean_lost": round(float(np.mean(list(lost.values()))), 4),
    }


def product(kind: str, size: int) -> ort.InferenceSession:
    """Return one matrix product: fp32, int8 with a scale a row, or int8 with one scale for all rows."""
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    builder = GraphBuilder("product", WeightFile("", {}))
    states = builder.input("x", "float32", ["R", size])
    whole, scale = (builder.constant(each) for each in _int8.quantise(weight, _int8.MATRIX_LEVELS, axis=0))
    if kind == "fp32":
        result = builder.op("MatMul", states, builder.constant(weight))
    elif kind == "int8, a scale a row":
        result = _int8.matmul(builder, states, whole, scale, rank=2)
    else:
        rounded, step, zero = builder.ops("DynamicQuantizeLinear", states, outputs=3)
        integers = builder.op("MatMulInteger", rounded, whole, zero)
        result = builder.op("Mul", builder.op("Cast", integers, to=1), builder.op("Mul", step, scale))
    return session(serialize(builder.finish([("y", result, "float32", ["R", size])])))


def products(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Time matrix products ``[R, D] x [D, D]``, in microseconds."""
    kinds = ("fp32", "int8, a scale a row", "int8, one scale for all rows")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for size in SIZES:
        for rows in ROWS:
            states = np.random.default_rng(1).standard_normal((rows, size)).astype(np.float32)
            calls = {kind: partial(product(kind, size).run, None, {"x": states}) for kind in kinds}
            seconds = side_by_side(calls, rounds=rounds, warmup=20)
            found.setdefault(str(size), {})[str(rows)] = {
                kind: round(1e6 * own, 1) for kind, own in seconds.items()
            }
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data.path", dest="data", type=Path, required=True, help="fdu-mtl.parquet")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"), help="where runs and bundles go")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    description = Path(__file__).parent.parent.parent / "examples" / "fdu-mtl" / "data.yaml"
    text = ("--data", str(description), "--data.path", str(options.data))
    found = {}
    for name, preset, words in (("fdu-mtl", "text", text), ("digits", "digits", ())):
        run = train(preset, options.out / f"run-{name}", *words)
        found[name] = compare(run, options.out / name, options.rounds)
    table = Table("model", "weights", "most lost, dev", "test", "int8 / fp32, 1 row", "64 rows", box=None)
    for name, result in found.items():
        times = result["router_us"]
        table.add_row(
            name,
            f"{result['weights']['int8']['per_fp32']:.3f}",
            f"{result['int8']['dev_most_lost_by_a_task']:.2f}",
            f"{result['int8']['test_most_lost_by_a_task']:.2f}",
            *(f"{times[str(rows)]['int8']['per_fp32']:.2f}" for rows in ROWS),
        )
    console = Console()
    console.print(table)
    result = {"models": found, "products_us": products(options.rounds)}
    console.print(f"written: {write_result('export_precision', result)}")


if __name__ == "__main__":
    main()

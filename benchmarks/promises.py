"""The ratios that we promise, measured again in about ten minutes; exits 1 when one is missed.

python -m benchmarks.promises              # make bench
python -m benchmarks.promises --only serving_engine

Nothing is written to benchmarks/results: what is kept there was measured longer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import RESULTS_VARIABLE

Result = dict[str, Any]


@dataclass(frozen=True)
class Promise:
    """A figure of a result and what it is promised to be.

    Attributes:
        what: In words.
        value: Takes it from the result.
        least: It is at least that,
        most: or at most that.
    """

    what: str
    value: Callable[[Result], float]
    least: float = float("-inf")
    most: float = float("inf")

    def kept(self, found: float) -> bool:
        """Return whether a figure is as promised."""
        return self.least <= found <= self.most

    @property
    def bound(self) -> str:
        """What is promised."""
        return f"at least {self.least:g}" if self.least > float("-inf") else f"at most {self.most:g}"


@dataclass(frozen=True)
class Measurement:
    """A benchmark, run shorter than for the figures that are kept.

    Attributes:
        name: Of its result.
        arguments: Its module and its options.
        promises: What it must show.
    """

    name: str
    arguments: Sequence[str]
    promises: Sequence[Promise]


def _engine(case: str, other: str = "a session a task, one by one") -> Callable[[Result], float]:
    return lambda result: float(result["cases"][case][other]["ratio"])


MEASUREMENTS = (
    Measurement(
        "serving_engine",
        ("benchmarks.serving.engine", "--rounds", "12"),
        (
            # Slower, and no more than that.
            Promise(
                "a single question: times as fast as its session", _engine("a single question"), least=0.7
            ),
            Promise(
                "16 mixed questions: times as fast as a session a task",
                _engine("16 mixed single-row questions"),
                least=2.5,
            ),
            Promise(
                "64 mixed questions: times as fast as a session a task",
                _engine("64 mixed single-row questions"),
                least=3.0,
            ),
            Promise(
                "one input of 20 tasks: times as fast as 20 calls",
                _engine("one input asked of all 20 tasks"),
                least=3.5,
            ),
        ),
    ),
    Measurement(
        "serving_memory",
        ("benchmarks.serving.memory", "--sessions", "10"),
        (
            Promise(
                "1,000 tasks: resident bytes against 1.3 times the weights plus 150 MB",
                lambda result: result["ways"]["coterie"]["bytes"] / result["bound"],
                most=1.0,
            ),
            Promise(
                "1,000 tasks: resident bytes against ordinary sessions",
                lambda result: (
                    result["ways"]["coterie"]["for_all_tasks"]
                    / result["ways"]["a session a task"]["for_all_tasks"]
                ),
                most=0.1,
            ),
        ),
    ),
    Measurement(
        "export_sizes",
        ("benchmarks.export.sizes",),
        (
            Promise(
                "1,000 tasks: all files against the bound of what is shared",
                lambda result: float(result["planted"]["all_files_against_bound"]),
                most=1.03,
            ),
            Promise(
                "1,000 tasks: weights against single-task models",
                lambda result: float(result["planted"]["share_of_single_task_models"]),
                most=0.1,
            ),
        ),
    ),
    Measurement(
        "export_scale",
        ("benchmarks.export.scale",),
        (
            Promise(
                "1,000 tasks: seconds of an export, checks included",
                lambda result: float(result["fresh"]["seconds"]["all"]),
                most=60,
            ),
        ),
    ),
    Measurement(
        "limits",
        ("benchmarks.limits", "--rounds", "10"),
        (
            Promise(
                "256 mixed questions: share of the speed of one large product",
                lambda result: next(
                    float(row["share_of_gemm"]) for row in result["batches"] if row["rows"] == 256
                ),
                least=0.6,
            ),
        ),
    ),
    Measurement(
        "peers_libraries",
        ("benchmarks.peers.libraries", "--tasks", "1000", "--rounds", "1"),
        (
            Promise(
                "1,000 tasks, 256 mixed questions: times as fast as a session a task",
                lambda result: float(
                    result["results"][0]["mixed_questions"]["256"][
                        "ONNX Runtime, a session a task, one by one"
                    ]["ratio"]
                ),
                least=8.0,
            ),
        ),
    ),
    Measurement(
        "serving_overhead",
        ("benchmarks.serving.overhead", "--seconds", "4"),
        (
            Promise(
                "processor milliseconds of a request over HTTP beside the engine",
                lambda result: max(
                    float(each["overhead_ms"])
                    for transport, each in result["transports"].items()
                    if transport != "grpc"
                ),
                most=0.6,
            ),
        ),
    ),
    Measurement(
        "serving_flood",
        ("benchmarks.serving.flood", "--seconds", "3", "--rounds", "1"),
        (
            Promise(
                "a flood on one task: others' 99th percentile against before, the median case",
                lambda result: statistics.median(float(row["ratio"]) for row in result["rows"]),
                most=2.0,
            ),
        ),
    ),
)


def measure(measurement: Measurement, folder: Path) -> Result:
    """Run a benchmark, with its result in ``folder``, and return that."""
    subprocess.run(
        [sys.executable, "-m", *measurement.arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, RESULTS_VARIABLE: str(folder)},
    )
    result: Result = json.loads((folder / f"{measurement.name}.json").read_text(encoding="utf-8"))
    return result


def main() -> None:
    """Measure, print what was promised and what was found, and exit."""
    parser = argparse.ArgumentParser(description="Measure the ratios that are promised; exit 1 on a miss.")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in MEASUREMENTS])
    chosen = parser.parse_args()
    console, missed = Console(), 0
    table = Table("what", "promised", "found", "", title="Promises", title_justify="left")
    began = time.monotonic()
    with TemporaryDirectory() as scratch:
        for measurement in MEASUREMENTS:
            if chosen.only and measurement.name not in chosen.only:
                continue
            console.print(f"python -m {' '.join(measurement.arguments)}", highlight=False)
            result = measure(measurement, Path(scratch))
            for promise in measurement.promises:
                found = promise.value(result)
                kept = promise.kept(found)
                missed += not kept
                table.add_row(
                    promise.what, promise.bound, f"{found:.3g}", "kept" if kept else "[bold red]MISSED[/]"
                )
    console.print(table)
    console.print(f"{missed} missed; {(time.monotonic() - began) / 60:.1f} minutes", highlight=False)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""Training steps a second beside LibMTL: same encoders, batches, loss and optimiser, one thread.

A step is forward, backward and the update of the weights; data, metrics and evaluation are left out on both
sides. Batches are of two kinds. With inputs of each task's own (LibMTL's multi-input) a sparse mixture runs
k of M experts and a dense one all. With every input asked of all tasks, some task needs each expert and k
saves little.

python -m benchmarks.training.steps

LibMTL has an environment of its own, as in ``benchmarks.training.libmtl``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.steps import training_step
from benchmarks.training.libmtl import LAYERS, VERSION, environment
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import ModelConfig, build_model
from coterie.training.blocks import InputShape

TASKS, CLASSES, ROWS = 20, 2, 64
"""Every batch has ``TASKS * ROWS`` questions, about as many inputs or about ``ROWS``."""
TURN = 0.25
"""Seconds of a turn, at least a step: long enough that the caches are the turn's own."""
CLAIM = 2.0
"""Steps a second at k = M / 4 in LibMTL's for a dense mixture of as many experts."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One architecture on both sides.

    Attributes:
        architecture: LibMTL's name.
        sharing: Ours.
        own_inputs: Whether each task has inputs of its own.
        size, hidden, width: Of an input, and of the layers of an encoder or expert.
        experts: M.
        k: Experts that a task mixes.
    """

    architecture: str
    sharing: str
    own_inputs: bool
    size: int
    hidden: int
    width: int
    experts: int = 1
    k: int = 1

    def libmtl(self) -> dict[str, Any]:
        """Return LibMTL's side."""
        return {**asdict(self), "tasks": TASKS, "classes": CLASSES, "rows": ROWS, "layers": LAYERS}

    def stage(self) -> dict[str, Any]:
        """Return our stage of that name."""
        block = {"kind": "mlp", "widths": [self.hidden, self.width]}
        mixture = {"experts": self.experts, "block": block}
        match self.sharing:
            case "hard sharing":
                return {"kind": "hard", "block": block}
            case "MMoE":
                return {"kind": "input_gated", **mixture}
            case "DSelect-k":
                return {"kind": "input_gated", "gate": "dselect_k", "k": self.k, **mixture}
            case "cross-stitch":
                layer = {"kind": "linear", "width": self.width}
                return {"kind": "stitched", "layers": [block, *[layer] * (LAYERS - 1)]}
            case "dense mixture":
                return {"kind": "gated", "gates": "softmax", **mixture}
        return {"kind": "gated", "probability": self.k / self.experts, **mixture}

    def coterie(self) -> tuple[Callable[[], None], int]:
        """Return a step of our side, and its number of parameters."""
        specs = [
            TaskSpec(name=f"task {task}", kind="classification", labels=tuple(map(str, range(CLASSES))))
            for task in range(TASKS)
        ]
        model = build_model(
            ModelConfig.model_validate({"stages": [self.stage()]}),
            input=TensorSpec(name="inputs", dtype="float32", shape=(None, self.size)),
            shape=InputShape(dims=(self.size,)),
            tasks=specs,
        ).train()
        inputs = torch.randn(ROWS * (TASKS if self.own_inputs else 1), self.size)
        row = torch.arange(ROWS * TASKS) % len(inputs)
        task = torch.arange(TASKS).repeat_interleave(ROWS)
        step = training_step(model, inputs, classes=CLASSES, row=row, task=task)
        return step, sum(parameter.numel() for parameter in model.parameters())


def cases() -> list[Case]:
    """Return what is compared."""
    small, large = {"size": 64, "hidden": 64, "width": 64}, {"size": 256, "hidden": 512, "width": 256}
    found = []
    for own in (False, True):
        for sizes in (small, large):
            found.append(Case(architecture="HPS", sharing="hard sharing", own_inputs=own, **sizes))
            for experts in (8, 16, 32):
                mixture = {"own_inputs": own, "experts": experts, **sizes}
                found.append(Case(architecture="MMoE", sharing="MMoE", k=experts, **mixture))
                found.append(Case(architecture="MMoE", sharing="dense mixture", k=experts, **mixture))
                found.append(Case(architecture="MMoE", sharing="gated", k=experts // 4, **mixture))
            selected = {"own_inputs": own, "experts": 8, "k": 2, **sizes}
            found.append(Case(architecture="DSelect_k", sharing="DSelect-k", **selected))
    # LibMTL's takes shared inputs only; its layers are affine maps of one width.
    found.append(Case(architecture="Cross_stitch", sharing="cross-stitch", own_inputs=False, **small))
    return found


class LibMtl:
    """LibMTL's side, in a process of its own that works only when asked."""

    def __init__(self, python: Path, settings: list[dict[str, Any]]) -> None:
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "benchmarks.training.libmtl_steps", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.parameters: list[int] = self._answer()

    def steps(self, case: int, number: int) -> float:
        """Return the seconds that so many steps took."""
        print(case, number, file=self._process.stdin, flush=True)
        seconds: float = self._answer()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Any:
        for line in self._process.stdout or ():
            return json.loads(line)
        raise SystemExit("LibMTL's side ended: see its message above")


def in_turns(sides: list[Callable[[int], float]], rounds: int) -> list[float]:
    """Return each side's median seconds a step; a side takes a number of steps and returns their seconds."""
    numbers = []
    for side in sides:
        side(1)
        numbers.append(max(1, round(TURN / side(1))))
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for own, side, number in zip(times, sides, numbers, strict=True):
            own.append(side(number) / number)
    return [statistics.median(own) for own in times]


def measure(case: Case, libmtl: LibMtl, number: int, rounds: int) -> dict[str, Any]:
    """Measure both sides of the case of that number."""
    step, parameters = case.coterie()

    def ours(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - began

    other, own = in_turns([lambda steps: libmtl.steps(number, steps), ours], rounds)
    return {
        **asdict(case),
        "libmtl": {"steps_per_second": round(1 / other, 2), "parameters": libmtl.parameters[number]},
        "coterie": {"steps_per_second": round(1 / own, 2), "parameters": parameters},
        "times": round(other / own, 2),
    }


def main() -> None:
    """Measure, print, and fail where a claim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/libmtl"), help="where LibMTL goes")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.work.mkdir(parents=True, exist_ok=True)
    python, reason = environment(arguments.work.absolute())
    if python is None:
        Console().print(f"skipped: {reason}")
        return
    compared = cases()
    libmtl = LibMtl(python, [case.libmtl() for case in compared])
    table = Table("inputs", "expert", "M", "k", "LibMTL", "", "coterie", "", "times", box=None)
    results = []
    for number, case in enumerate(compared):
        result = measure(case, libmtl, number, arguments.rounds)
        results.append(result)
        table.add_row(
            "own" if case.own_inputs else "shared",
            f"{case.size}-{case.hidden}-{case.width}",
            str(case.experts),
            str(case.k),
            case.architecture,
            f"{result['libmtl']['steps_per_second']:.1f}",
            case.sharing,
            f"{result['coterie']['steps_per_second']:.1f}",
            f"{result['times']:.2f}",
        )
    libmtl.close()
    Console().print(table)
    gated = [each for each in results if each["sharing"] == "gated"]
    worst = min(each["times"] for each in gated if each["own_inputs"])
    shared = min(each["times"] for each in gated if not each["own_inputs"])
    what = (
        f"training steps a second (forward, backward, update), {TASKS} tasks, {ROWS} inputs of all tasks or "
        f"of each, one thread, rounds in turn with LibMTL {VERSION}; Adam in one pass on both sides"
    )
    result = {"what": what, "libmtl_version": VERSION, "claim": CLAIM, "worst": worst, "worst_shared": shared}
    result["cases"] = results
    Console().print(f"written: {write_result('training_steps', result)}")
    if worst < CLAIM:
        raise SystemExit(f"k = M / 4 takes {worst:.2f} times LibMTL's steps a second (claimed: {CLAIM:g})")


if __name__ == "__main__":
    main()

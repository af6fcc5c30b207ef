"""Makes a run with the command line, as a user would, and says what came of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.quality._design import ROOT, Job
from benchmarks.quality._record import Record, identity
from coterie.cli._machine import machine
from coterie.runtime.plan import SharingPlan, StagePlan
from coterie.training import Run, load_run
from coterie.training.budget import task_costs
from coterie.training.several import apply

VECTORS = "vectors.safetensors"
"""Word vectors learned from the data's own texts: the first run whose stage is called so makes them, and all
others read the same."""


_SHARING = threading.Lock()
_NO_NUMBER = re.compile(r"error: (the loss is (?:nan|-?inf) at epoch \d+)")


class DivergedError(RuntimeError):
    """A training that ended because its loss was no number any more: these settings are too much for it."""


def arguments(job: Job, files: tuple[str, ...], folder: Path, threads: int) -> list[str]:
    """Return the words of the command that makes a run."""
    words = ["train", job.system.source]
    if job.study.description is not None:
        words += ["--data", str(job.study.description.relative_to(ROOT))]
    for option, file in zip(job.study.paths, files, strict=True):
        words += [f"--{option}", file]
    words += ["--run", str(folder), "--seed", str(job.seed), "--trainer.threads", str(threads)]
    for option in job.options:
        name, _, value = option.partition("=")
        words += [f"--{name}", value]
    return words


def train(job: Job, files: tuple[str, ...], runs: Path, threads: int) -> Record:
    """Train, or go on with a training that was interrupted; return its record.

    Raises:
        DivergedError: If the loss was no number any more.
        RuntimeError: If the command fails otherwise; its last lines are the message.
    """
    folder = runs / job.name
    shared = runs / job.study.name / f"{job.protocol.name}-{VECTORS}"
    folder.mkdir(parents=True, exist_ok=True)
    if shared.is_file() and not (folder / VECTORS).is_file():
        shutil.copyfile(shared, folder / VECTORS)
    words = arguments(job, files, folder, threads)
    began = time.perf_counter()
    with (folder / "output.txt").open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "coterie.cli", *words],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        _, status, used = os.wait4(child.pid, 0)
    if status:
        lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(lines[-15:])
        if found := _NO_NUMBER.search(said):
            raise DivergedError(found[1])
        raise RuntimeError(f"{job.name} failed:\n{said}")
    _share_vectors(folder / VECTORS, shared)
    seconds = time.perf_counter() - began
    return described(job, load_run(folder)) | {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "machine": machine(),
    }


def _share_vectors(own: Path, shared: Path) -> None:
    """Keep a run's word vectors for others, but those that are there already."""
    if not own.is_file():
        return
    with _SHARING:
        known = load_file(shared) if shared.is_file() else {}
        more = load_file(own)
        if more.keys() - known.keys():
            beside = shared.with_suffix(".tmp")
            save_file(more | known, beside)
            beside.replace(shared)


def opened(job: Job, runs: Path, record: Record) -> Record:
    """Return the record of a run that counts, with its scores on the splits that are read once."""
    run = load_run(runs / job.name)
    return record | {"scores": {split: scores(run, split) for split in ("dev", *job.study.splits)}}


def described(job: Job, run: Run) -> Record:
    """Return what a run's record says of it; its scores are those on dev alone."""
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text("utf-8").splitlines()]
    plan = run.model.plan()
    return {
        **identity(job),
        "config": run.config.model_dump(mode="json", exclude={"data"}),
        "curves": [_epoch(record) for record in history],
        "scores": {"dev": scores(run, "dev")},
        "parameters": sum(weights.numel() for weights in run.model.parameters()),
        "costs": _costs(run, plan),
        "plan": [_stage(stage) for stage in plan.stages if len(stage.blocks) > 1 and stage.kind != "head"],
    }


def scores(run: Run, split: str) -> dict[str, float]:
    """Return each task's primary metric on a split, a share."""
    return {task.name: round(run.metrics[split][task.name][task.metric], 6) for task in run.data.tasks}


def _epoch(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "seconds": round(record["seconds"], 1),
        "train_loss": round(record["train"]["loss"], 5),
        "dev_loss": round(record["dev"]["loss"], 5),
        "dev": round(100 * record["dev"]["metric"], 3),
    }


def _costs(run: Run, plan: SharingPlan) -> dict[str, Any]:
    """Return what a task of the frozen model uses, as means over tasks, and what all of them hold."""
    one = apply(lambda part: torch.from_numpy(part[:1]), run.samples())
    costs = task_costs(run.model.freeze(), one)
    return {
        "parameters_kept": sum(block.parameters for stage in plan.stages for block in stage.blocks),
        "parameters_a_task": round(float(np.mean([plan.parameters_of(t) for t in range(len(plan.tasks))]))),
        "operations_an_input": round(float(np.mean([cost["operations"] for cost in costs]))),
        "blocks_a_task": {stage.name: round(float(stage.density().mean()), 3) for stage in plan.stages},
    }


def _stage(stage: StagePlan) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": stage.name,
        "kind": stage.kind,
        "trained": stage.trained_blocks,
        "kept": len(stage.blocks),
        "uses": [list(used) for used in stage.uses],
    }
    if stage.kind == "gated":
        found["weights"] = [[round(value, 4) for value in row] for row in stage.weights]
        if stage.gate_probabilities is not None:
            found["probabilities"] = [[round(p, 3) for p in row] for row in stage.gate_probabilities]
    return found

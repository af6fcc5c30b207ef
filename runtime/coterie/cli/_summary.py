"""What a bundle or a run holds, as plain data; needs neither torch nor onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from coterie.cli._folders import RUN_DATA, RUN_METRICS, RUN_PLAN, kind_of
from coterie.runtime.errors import CheckpointError
from coterie.runtime.manifest import MANIFEST, Manifest, TensorSpec
from coterie.runtime.overview import cluster_tree, kind_rows
from coterie.runtime.plan import SharingPlan, StageKind, StagePlan
from coterie.runtime.tasks import TaskSpec

_NAMED_PAIRS = 1000
_WHY_WHOLE: Mapping[StageKind, str] = {
    "input_gated": "its gates look at the input: which parts a task needs is known only once they are asked",
    "stitched": "its columns take from each other after every layer",
}

Metrics = Mapping[str, Mapping[str, float]]


class _Source(NamedTuple):
    inputs: Sequence[TensorSpec]
    text: bool
    tasks: Sequence[tuple[TaskSpec, Metrics]]
    plan: SharingPlan


def summarise(folder: Path, *, public_key: Path | None = None) -> dict[str, Any]:
    """Return everything that ``coterie inspect`` shows; a bundle's files are verified first.

    With a key the bundle must be signed with its private half.

    Raises:
        CoterieError: If the folder is neither a bundle nor a finished run, or is damaged.
    """
    if kind_of(folder) == "run":
        return {
            "kind": "run",
            "name": folder.resolve().name,
            **_body(_read_run(folder)),
            **_run_facts(folder),
        }
    from coterie.runtime.bundle import load_bundle

    bundle = load_bundle(folder, public_key=public_key)
    manifest = bundle.manifest
    metrics = [(entry.task, entry.metrics) for entry in manifest.tasks]
    source = _Source(manifest.inputs, manifest.text is not None, metrics, manifest.plan)
    return {"kind": "bundle", "name": manifest.name, **_body(source), **_bundle_facts(folder, manifest)}


def _body(source: _Source) -> dict[str, Any]:
    plan = source.plan
    return {
        "inputs": [
            {**spec.model_dump(mode="json"), "text": source.text and spec.dtype == "int64"}
            for spec in source.inputs
        ],
        "tasks": [
            {
                **spec.model_dump(mode="json"),
                "metric": spec.metric,
                "metrics": {split: dict(each) for split, each in metrics.items()},
            }
            for spec, metrics in source.tasks
        ],
        "stages": [_stage(stage) for stage in plan.stages],
        "clusters": {
            stage.name: _members(stage, plan.tasks) for stage in plan.stages if stage.kind == "cluster"
        },
        "tree": [asdict(branch) for branch in cluster_tree(plan)],
        "experts": {
            stage.name: _experts(stage, plan.tasks) for stage in plan.stages if stage.kind == "gated"
        },
        "whole": {stage.name: _why_whole(stage) for stage in plan.stages if stage.dense},
        "sharing": _sharing(plan),
    }


def _stage(stage: StagePlan) -> dict[str, Any]:
    density = stage.density()
    return {
        "name": stage.name,
        "kind": stage.kind,
        "trained_blocks": stage.trained_blocks,
        "kept_blocks": len(stage.blocks),
        "parameters": sum(block.parameters for block in stage.blocks),
        "density": float(density.mean()),
        "density_range": [int(density.min()), int(density.max())],
    }


def _why_whole(stage: StagePlan) -> str:
    """Return why no task can leave out a part of the stage."""
    return _WHY_WHOLE.get(stage.kind, "its block computes all of them at once")


def _members(stage: StagePlan, tasks: Sequence[str]) -> dict[str, list[str]]:
    """Return the tasks that use each block."""
    members: dict[str, list[str]] = {block.name: [] for block in stage.blocks}
    for task, used in zip(tasks, stage.uses, strict=True):
        for block in used:
            members[stage.blocks[block].name].append(task)
    return members


def _experts(stage: StagePlan, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each task's experts with their mixture weights."""
    return {
        task: {stage.blocks[block].name: weight for block, weight in zip(used, weights, strict=True)}
        for task, used, weights in zip(tasks, stage.uses, stage.weights, strict=True)
    }


def _sharing(plan: SharingPlan) -> dict[str, Any]:
    """Return how many pairs of tasks have no block in common, beside those that all tasks use."""
    count = len(plan.tasks)
    apart = np.ones((count, count), dtype=bool)
    for stage in plan.stages:
        used = (stage.mixing_matrix() != 0).astype(np.float32)
        used = used[:, used.min(axis=0) == 0]
        apart &= (used @ used.T) == 0
    first, second = np.nonzero(np.triu(apart, k=1))
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    return {
        "pairs": count * (count - 1) // 2,
        "pairs_sharing_nothing": len(pairs),
        "sharing_nothing": [[plan.tasks[one], plan.tasks[other]] for one, other in pairs[:_NAMED_PAIRS]],
    }


def _bundle_facts(folder: Path, manifest: Manifest) -> dict[str, Any]:
    lengths = {name: entry.length for name, entry in manifest.files.items()}
    # Nobody serves the report: it is not what standalone files are compared with.
    report = sum(lengths.pop(name) for name in list(lengths) if name.endswith(".html"))
    total = sum(lengths.values()) + (folder / MANIFEST).stat().st_size
    sizes: dict[str, Any] = {**manifest.sizes, "bundle": total, "report": report}
    if "standalone" in manifest.sizes:
        sizes["standalone_per_bundle"] = round(manifest.sizes["standalone"] / total, 3)
    return {
        "files": len(manifest.files) + 1,
        "sizes": sizes,
        "kinds": [
            {"blocks": row.blocks, "stages": list(row.stages), **row.sizes.model_dump()}
            for row in kind_rows(manifest)
        ],
        "parity": manifest.parity.model_dump(mode="json"),
        **({} if manifest.precision is None else {"precision": manifest.precision.model_dump(mode="json")}),
        "provenance": manifest.provenance.model_dump(mode="json"),
    }


def _read_run(folder: Path) -> _Source:
    try:
        data = json.loads((folder / RUN_DATA).read_text(encoding="utf-8"))
        metrics = json.loads((folder / RUN_METRICS).read_text(encoding="utf-8"))
        plan = SharingPlan.model_validate_json((folder / RUN_PLAN).read_text(encoding="utf-8"))
        specs = [TaskSpec.model_validate(task) for task in data["tasks"]]
        by_task = [
            (
                spec,
                {
                    split: {name: float(value) for name, value in tasks[spec.name].items()}
                    for split, tasks in metrics.items()
                    if spec.name in tasks
                },
            )
            for spec in specs
        ]
        # Runs of before there could be several have one, called so.
        inputs = data["inputs"] if "inputs" in data else [data["input"]]
        specs_of_inputs = [TensorSpec.model_validate(each) for each in inputs]
        return _Source(specs_of_inputs, data["text"] is not None, by_task, plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "not what a training writes" if isinstance(error, ValidationError) else type(error).__name__
        raise CheckpointError(f"the run in {folder} is damaged ({reason}): train it again") from error


def _run_facts(folder: Path) -> dict[str, Any]:
    data = json.loads((folder / RUN_DATA).read_text(encoding="utf-8"))
    return {"provenance": {"data_sha256": data.get("sha256")}}

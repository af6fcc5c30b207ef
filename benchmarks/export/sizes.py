"""What a bundle weighs, against a file for each task and against a model for each task.

python -m benchmarks.export.sizes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from benchmarks.common import write_result
from benchmarks.export.planted import block_bytes, planted_inputs, planted_model, same_files, task_by_task
from coterie.exporter import About, Checks, export, export_run, export_standalone
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, Provenance
from coterie.training import load_run_config, train
from coterie.training.frozen import FrozenModel

SLACK = 1.03
"""A bundle is at most so much larger than its bound."""

GRAPH_LIMIT = 20 * 1024
"""A task graph of the digits demo is at most so large, without weights."""


def stage_rows(model: FrozenModel, folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Return for each stage what N single-task models hold, what the bundle may hold, and what it holds.

    A single-task model has one block in each layer. The bundle may hold the share K/N of that for a cluster
    layer, the experts that any task selects for a gated one, and every head.
    """
    tasks = len(model.tasks)
    rows = []
    for stage, bank in zip(model.plan.stages, model.banks, strict=True):
        one = block_bytes(bank.tensors[0])
        needed = len({block for used in stage.uses for block in used})
        measured = stored_bytes(folder, manifest, stage.name)
        rows.append(
            {
                "stage": stage.name,
                "blocks": needed,
                "single_task_models": tasks * one,
                "bound": needed * one,
                "bundle": measured,
            }
        )
    return rows


def stored_bytes(folder: Path, manifest: Manifest, stage: str) -> int:
    """Return the bytes of the weight file that belong to a stage."""
    keys = {use.tensor for block in manifest.plan.stage(stage).blocks for use in manifest.tensors[block.name]}
    with safe_open(str(folder / WEIGHTS), framework="numpy") as file:
        return sum(file.get_tensor(key).nbytes for key in keys)


def file_bytes(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Return the bytes of a bundle's files, by what they are."""
    graphs = {entry.graph for entry in manifest.tasks}
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return {
        "weights": sizes[WEIGHTS],
        "task_graphs": sum(sizes[graph] for graph in graphs),
        "largest_task_graph": max(sizes[graph] for graph in graphs),
        "router": sizes[manifest.router],
        "manifest": sizes[MANIFEST],
        "report": sizes["report.html"],
        "all": sum(sizes.values()),
    }


def planted(tasks: int, width: int, scratch: Path) -> dict[str, Any]:
    """Measure the planted model's bundle."""
    model = planted_model(tasks, width=width)
    manifest = export(
        model,
        scratch / "planted",
        reference=task_by_task(model),
        samples=planted_inputs(),
        about=About(Provenance(coterie="0")),
        checks=Checks(share=0.05),
    )
    rows = stage_rows(model, scratch / "planted", manifest)
    files = file_bytes(scratch / "planted", manifest)
    single, bound = (sum(row[key] for row in rows) for key in ("single_task_models", "bound"))
    standalone = manifest.sizes["standalone"]
    # A task graph is a task's own in both, so that the bound for files holds them too.
    bound_of_files = bound + files["task_graphs"]
    return {
        "tasks": tasks,
        "width": width,
        "stages": rows,
        "bytes": {
            "single_task_models": single,
            "standalone_files": standalone,
            "bound": bound,
            **files,
        },
        "weights_against_bound": round(files["weights"] / bound, 4),
        "weights_within_3_percent": files["weights"] <= SLACK * bound,
        "served_files_against_bound": round((files["all"] - files["report"]) / bound_of_files, 4),
        "all_files_against_bound": round(files["all"] / bound_of_files, 4),
        "share_of_single_task_models": round(files["all"] / single, 4),
        "share_of_standalone_files": round(files["all"] / standalone, 4),
        "bytes_a_task_beside_weights": (files["all"] - files["weights"]) // tasks,
        "one_standalone_file": written_standalone(scratch / "planted", manifest, scratch),
    }


def written_standalone(folder: Path, manifest: Manifest, scratch: Path) -> int:
    """Write the first task as a file of its own and return its bytes."""
    file = scratch / "task.onnx"
    export_standalone(folder, manifest.tasks[0].task.name, file)
    return file.stat().st_size


def digits(scratch: Path) -> dict[str, Any]:
    """Measure the bundle of the digits demo, exported twice."""
    config = load_run_config("digits", overrides=("trainer.epochs=16", "trainer.threads=1"))
    run = train(config, scratch / "run")
    manifest = export_run(run, scratch / "digits")
    export_run(run, scratch / "again")
    files = file_bytes(scratch / "digits", manifest)
    return {
        "tasks": len(manifest.tasks),
        "bytes": {**files, "standalone_files": manifest.sizes["standalone"]},
        "task_graph_limit": GRAPH_LIMIT,
        "task_graphs_within": files["largest_task_graph"] <= GRAPH_LIMIT,
        "share_of_standalone_files": round(files["all"] / manifest.sizes["standalone"], 4),
        "byte_identical_twice": same_files(scratch / "digits", scratch / "again"),
    }


def table(result: dict[str, Any]) -> Table:
    """Return the planted model's stages as a table."""
    shown = Table("stage", "blocks", "N single-task models", "bound", "bundle", title="MiB")
    for row in result["stages"]:
        sizes = (f"{row[key] / (1 << 20):.2f}" for key in ("single_task_models", "bound", "bundle"))
        shown.add_row(row["stage"], str(row["blocks"]), *sizes)
    return shown


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--width", type=int, default=256)
    chosen = parser.parse_args()
    console = Console()
    with TemporaryDirectory() as scratch:
        result = {
            "planted": planted(chosen.tasks, chosen.width, Path(scratch)),
            "digits": digits(Path(scratch)),
        }
    console.print(table(result["planted"]))
    console.print_json(json.dumps(result))
    write_result("export_sizes", result)


if __name__ == "__main__":
    main()

"""Six ways of sharing between four taggings of GUM: words' classes, dependency relations and entities.

python -m benchmarks.training.gum --data.path gum.parquet

Every system is a preset, trained by the command line; a run that is there is not made again, and one that was
interrupted goes on. Weights are chosen on dev; test and the other genres (ood) are read once. Each run is
exported, and the first is served and asked by Triton's own client. docs/data.md says where the data is from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from coterie.exporter import export_run
from coterie.runtime.serving import running_server
from coterie.training import Run, load_run

SYSTEMS = (
    "tagging",
    "tagging-hard",
    "tagging-low-supervision",
    "tagging-cross-stitch",
    "tagging-sluice",
    "tagging-single",
)
DATA = Path(__file__).parents[2] / "examples" / "gum" / "data.yaml"
SENTENCE = "Mary saw two old houses in Boston last week ."


def trained(system: str, options: argparse.Namespace) -> Run:
    """Return a system's finished run; train it first where there is none."""
    folder = options.out / system
    if not (folder / "metrics.json").is_file():
        command = [sys.executable, "-m", "coterie.cli", "train", system, "--data", str(DATA)]
        command += ["--data.path", str(options.data), "--run", str(folder), "--trainer.threads", "1"]
        command += ["--trainer.epochs", str(options.epochs)] if options.epochs else []
        subprocess.run(command, check=True)
    return load_run(folder)


def row(run: Run, bundle: Path) -> dict[str, Any]:
    """Export a run; return what the table says of it."""
    manifest = export_run(run, bundle, overwrite=True)
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text("utf-8").splitlines()]
    return {
        **{
            split: {task.name: round(100 * tasks[task.name][task.metric], 2) for task in run.data.tasks}
            | {"mean": round(100 * run.mean_metric(split), 2)}
            for split, tasks in run.metrics.items()
        },
        "epochs": run.config.trainer.epochs,
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "blocks": {stage.name: len(stage.blocks) for stage in run.model.plan().stages},
        "bundle_bytes": sum(file.stat().st_size for file in bundle.iterdir() if file.suffix != ".html"),
        "parity": manifest.parity.max_abs_error,
    }


def ask(bundle: Path, tasks: list[str]) -> dict[str, str]:
    """Serve a bundle; return each task's tags of a sentence, as Triton's HTTP client gets them."""
    with running_server(bundle) as server:
        client = triton.InferenceServerClient(server.http)
        text = triton.InferInput("text", [1], "BYTES")
        text.set_data_from_numpy(np.array([SENTENCE], dtype=np.object_))
        answers = {task: client.infer(task, [text]).as_numpy("label")[0] for task in tasks}
        client.close()
    return {task: b" ".join(tags).decode() for task, tags in answers.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data.path", dest="data", type=Path, required=True, help="gum.parquet")
    parser.add_argument("--out", type=Path, default=Path("runs/gum"), help="where the runs and bundles go")
    parser.add_argument("--epochs", type=int, help="rather than the presets' own number")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="rather than all")
    options = parser.parse_args()
    rows, tasks = {}, []
    for system in options.systems:
        run = trained(system, options)
        tasks = [task.name for task in run.data.tasks]
        rows[system] = row(run, options.out / f"{system}-bundle")
    console = Console()
    for split in ("dev", "test", "ood"):
        table = Table(split, *tasks, "mean", box=None)
        for system, found in rows.items():
            table.add_row(system, *(f"{value:.2f}" for value in found[split].values()))
        console.print(table)
    tags = ask(options.out / f"{options.systems[0]}-bundle", tasks)
    console.print(f"{SENTENCE}\n" + "\n".join(f"  {task}: {each}" for task, each in tags.items()))
    path = write_result(
        "gum",
        {
            "protocol": "one seed, chosen on dev, test and ood read once; words' accuracy, entities' F1",
            "systems": rows,
            "asked_over_http": {"text": SENTENCE, **tags},
        },
    )
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()

"""fdu-mtl, honest protocol, quick setting: every text system, one seed; a run a line, resumable run by run.

python -m benchmarks.training.text --data.path fdu-mtl.parquet

Train on train, choose on dev, read test once. Each system is a preset, trained and exported by the command
line as a user would; a finished run leaves one JSON file under --runs and is not made again. All presets but
``text`` read the same word vectors, learned from the data's own texts: the first run makes them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.text_quality import linear, means

SYSTEMS = {
    "lstm": "LSTM, one a task",
    "textcnn": "TextCNN, one a task",
    "han": "HAN, one a task",
    "soft-share": "SoftShare, L2 towards the mean",
    "soft-share-trace": "SoftShare, trace norm",
    "hard-share": "HardShare",
    "asp-mtl": "ASP-MTL",
    "ncmtl": "NCMTL",
    "text": "coterie, preset text",
}
"""Preset to its name in the table."""

DATA = Path(__file__).parents[2] / "examples" / "fdu-mtl" / "data.yaml"
VECTORS = "vectors.safetensors"


def command(*words: str) -> None:
    """Run ``coterie`` as a user would."""
    subprocess.run([sys.executable, "-m", "coterie.cli", *words], check=True)


def system(preset: str, data: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train and export one preset; return its accuracies, time and sizes."""
    run, bundle, shared = folder / preset, folder / f"{preset}-bundle", folder / VECTORS
    run.mkdir(parents=True, exist_ok=True)
    if shared.is_file() and not (run / VECTORS).is_file():
        shutil.copyfile(shared, run / VECTORS)
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command("train", preset, "--data", str(DATA), "--run", str(run), "--data.path", str(data), *options)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if (run / VECTORS).is_file() and not shared.is_file():
        shutil.copyfile(run / VECTORS, shared)
    command("export", str(run), str(bundle), "--overwrite")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    accuracy = {split: {task: each["accuracy"] for task, each in metrics[split].items()} for split in metrics}
    epochs = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "dev": means(accuracy["dev"]),
        "test": means(accuracy["test"]),
        "test_by_task": accuracy["test"],
        "dev_by_epoch": [round(100 * epoch["dev"]["metric"], 2) for epoch in epochs],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, 1),
        "parameters": sum(block["parameters"] for stage in plan["stages"] for block in stage["blocks"]),
        "bundle_bytes": sum(file.stat().st_size for file in bundle.iterdir()),
        "parity": manifest["parity"],
        "options": options,
    }


def baselines(data: Path) -> dict[str, Any]:
    """Tune the pooled TF-IDF logistic regression on dev; return it, and one model a task with its options."""
    began = time.perf_counter()
    return {**linear(data), "seconds": round(time.perf_counter() - began, 1)}


def once(path: Path, make: Any) -> dict[str, Any]:
    """Return what the file holds, or make it."""
    if not path.is_file():
        result = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data.path", dest="data", type=Path, required=True, help="fdu-mtl.parquet")
    parser.add_argument("--runs", type=Path, default=Path("runs/text"), help="where the runs go")
    parser.add_argument("--only", nargs="*", default=[*SYSTEMS, "linear"], help="presets, or linear")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    extra = ["--trainer.threads", str(options.threads)]
    found = {}
    for name in [*SYSTEMS, "linear"]:
        path = options.runs / f"{name}.json"
        if name == "linear" and (name in options.only or path.is_file()):
            found[name] = once(path, lambda: baselines(options.data))
        elif name in options.only or path.is_file():
            found[name] = once(path, lambda name=name: system(name, options.data, options.runs, extra))
    table = Table("system", "dev 14", "test 14", "test 16", "CPU s", "parameters", "bundle MB", box=None)
    if "linear" in found:
        single, pooled = found["linear"]["single"]["test"], found["linear"]["pooled"]
        table.add_row("TF-IDF + logistic regression, one a task", "", str(single["14"]), str(single["16"]))
        table.add_row(
            "TF-IDF + logistic regression, pooled",
            *(str(pooled[split][which]) for split, which in (("dev", "14"), ("test", "14"), ("test", "16"))),
        )
    for name, title in SYSTEMS.items():
        if name in found:
            one = found[name]
            table.add_row(
                title,
                *(str(one[split][which]) for split, which in (("dev", "14"), ("test", "14"), ("test", "16"))),
                f"{one['cpu_seconds']:.0f}",
                f"{one['parameters']:,}",
                f"{one['bundle_bytes'] / 1e6:.1f}",
            )
    console = Console()
    console.print(table)
    path = write_result(
        "text_systems",
        {
            "protocol": "train on train, choose on dev, test read once; 14: the paper's domains, 16: all",
            "systems": found,
        },
    )
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()

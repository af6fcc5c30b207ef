"""fdu-mtl, honest protocol: train on train, choose on dev, read test once; then ask the server in raw text.

python -m benchmarks.text_quality --data.path fdu-mtl.parquet --seeds 3

The data set is not part of coterie; docs/data.md says where it comes from. The linear baseline (one pooled
TF-IDF logistic regression, and one a task) is tuned on dev over n-grams, weighting and C.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.common import write_result
from coterie.runtime.serving import running_server

NOT_IN_THE_PAPER = ("MR", "imdb")
GRID = [((1, high), minimum, cost) for high in (2, 3) for minimum in (1, 2) for cost in (3.0, 10.0, 30.0)]
Rows = dict[str, tuple[list[str], list[str], np.ndarray]]


def command(*words: str) -> None:
    """Run ``coterie`` as a user would."""
    subprocess.run([sys.executable, "-m", "coterie.cli", *words], check=True)


def means(by_task: dict[str, float]) -> dict[str, float]:
    """Return the mean accuracy over the paper's 14 domains and over all 16, in percent."""
    paper = [value for task, value in by_task.items() if task not in NOT_IN_THE_PAPER]
    return {
        "14": round(100 * float(np.mean(paper)), 2),
        "16": round(100 * float(np.mean(list(by_task.values()))), 2),
    }


def ours(data: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Train by the command line, resuming what is there; return accuracies, density and time."""
    run = folder / f"run-{seed}"
    began = time.perf_counter()
    description = str(Path(__file__).parent.parent / "examples" / "fdu-mtl" / "data.yaml")
    command(
        "train",
        "text",
        "--data",
        description,
        "--run",
        str(run),
        "--data.path",
        str(data),
        "--seed",
        str(seed),
    )
    seconds = time.perf_counter() - began
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    accuracy = {split: {task: each["accuracy"] for task, each in metrics[split].items()} for split in metrics}
    return {
        "seed": seed,
        "dev": means(accuracy["dev"]),
        "test": means(accuracy["test"]),
        "test_by_task": accuracy["test"],
        "blocks": {
            stage["name"]: [len(stage["blocks"]), stage["trained_blocks"]] for stage in plan["stages"]
        },
        "seconds": round(seconds, 1),
    }


def linear(data: Path) -> dict[str, Any]:
    """Tune a pooled TF-IDF logistic regression on dev; return it, and one model a task with its options."""
    table = pq.read_table(data).to_pydict()
    rows: Rows = {}
    for split in ("train", "dev", "test"):
        chosen = [i for i, each in enumerate(table["split"]) if each == split]
        rows[split] = (
            [table["text"][i] for i in chosen],
            [table["task"][i] for i in chosen],
            np.array([table["label"][i] for i in chosen]),
        )
    best: tuple[float, tuple[tuple[int, int], int, float]] = (0.0, GRID[0])
    for option in GRID:
        score = means(_pooled(rows, option, "dev"))["14"]
        best = max(best, (score, option))
    option = best[1]
    name = f"TF-IDF {option[0][0]}-{option[0][1]}-grams, min_df {option[1]}, C {option[2]}, sublinear"
    return {
        "chosen": name,
        "pooled": {"dev": means(_pooled(rows, option, "dev")), "test": means(_pooled(rows, option, "test"))},
        "single": {"test": means(_single(rows, option, "test"))},
    }


def _model(option: tuple[tuple[int, int], int, float]) -> tuple[TfidfVectorizer, LogisticRegression]:
    ngrams, minimum, cost = option
    vectorizer = TfidfVectorizer(
        ngram_range=ngrams,
        min_df=minimum,
        sublinear_tf=True,
        tokenizer=str.split,
        token_pattern=None,
        dtype=np.float32,
    )
    return vectorizer, LogisticRegression(C=cost, max_iter=300, solver="liblinear")


def _pooled(rows: Rows, option: tuple[tuple[int, int], int, float], split: str) -> dict[str, float]:
    vectorizer, classifier = _model(option)
    classifier.fit(vectorizer.fit_transform(rows["train"][0]), rows["train"][2])
    texts, tasks, labels = rows[split]
    right = classifier.predict(vectorizer.transform(texts)) == labels
    return {task: float(right[np.array(tasks) == task].mean()) for task in sorted(set(tasks))}


def _single(rows: Rows, option: tuple[tuple[int, int], int, float], split: str) -> dict[str, float]:
    found = {}
    for task in sorted(set(rows["train"][1])):
        part = {
            name: (
                [x for x, t in zip(texts, tasks, strict=True) if t == task],
                [task],
                y[np.array(tasks) == task],
            )
            for name, (texts, tasks, y) in rows.items()
        }
        vectorizer, classifier = _model(option)
        classifier.fit(vectorizer.fit_transform(part["train"][0]), part["train"][2])
        found[task] = float(
            (classifier.predict(vectorizer.transform(part[split][0])) == part[split][2]).mean()
        )
    return found


def ask(bundle: Path, text: str) -> dict[str, str]:
    """Serve the bundle, send raw text over HTTP, return each task's label."""
    with running_server(bundle) as server:
        request = urllib.request.Request(
            f"http://{server.http}/ask",
            data=json.dumps({"inputs": [text]}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310
            answers: dict[str, Any] = json.load(response)["answers"][0]
    return {task: answer["label"] for task, answer in answers.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data.path", dest="data", type=Path, required=True, help="fdu-mtl.parquet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/text_quality"), help="where the runs go")
    options = parser.parse_args()
    runs = [ours(options.data, seed, options.out) for seed in range(options.seeds)]
    bundle = options.out / "bundle"
    command("export", str(options.out / "run-0"), str(bundle), "--overwrite")
    labels = ask(bundle, "this is the best thing i have bought in years , i love it")
    baseline = linear(options.data)
    test = [run["test"]["14"] for run in runs]
    table = Table("system", "dev 14", "test 14", "test 16", box=None)
    table.add_row("TF-IDF + logistic regression, one a task", "", *_cells(baseline["single"]["test"]))
    pooled = baseline["pooled"]
    table.add_row("TF-IDF + logistic regression, pooled", str(pooled["dev"]["14"]), *_cells(pooled["test"]))
    for run in runs:
        table.add_row(
            f"coterie, preset text, seed {run['seed']}", str(run["dev"]["14"]), *_cells(run["test"])
        )
    console = Console()
    console.print(table)
    console.print(
        f"coterie, mean of {len(test)} seeds: {np.mean(test):.2f} (standard deviation {np.std(test):.2f})"
    )
    console.print(f"asked over HTTP in raw text, {len(labels)} domains answered: {labels}")
    path = write_result(
        "text_quality",
        {
            "protocol": "train on train, choose on dev, test read once; 14: the paper's domains, 16: all",
            "coterie": runs,
            "coterie_mean_test_14": round(float(np.mean(test)), 2),
            "linear": baseline,
            "bundle_bytes": sum(file.stat().st_size for file in bundle.iterdir()),
            "asked_over_http": labels,
        },
    )
    console.print(f"written: {path}")


def _cells(accuracy: dict[str, float]) -> tuple[str, str]:
    return str(accuracy["14"]), str(accuracy["16"])


if __name__ == "__main__":
    main()

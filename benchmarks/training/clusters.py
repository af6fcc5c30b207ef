"""Which way of clustering finds the clusters that were planted? Every way over several seeds.

python -m benchmarks.training.clusters
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from benchmarks.common import write_result
from coterie.training import RunConfig, load_data, train

LITERAL = {"mode": "literal", "warmup": 0}
CASES: dict[str, dict[str, Any]] = {
    "literal, as printed": {**LITERAL, "alike": False},
    "literal, all start alike": LITERAL,
    "literal after a warm-up": {"mode": "literal"},
    "shadow (default)": {},
    "shadow, pull rises over 4 epochs": {"pull_warmup": 4},
    "by gradients": {"by": "gradients"},
    "by function": {"by": "function"},
    "by weights, not alike": {"alike": False},
    "by function, not alike": {"alike": False, "by": "function"},
    "clusters: auto": {"clusters": "auto"},
    "clusters: auto, by function": {"clusters": "auto", "by": "function"},
}
"""Options of the cluster layer."""
BLOCK = {"kind": "mlp", "widths": [16, 16], "activation": "tanh"}
"""Two layers, so that hidden units can stand in any order."""


def recover(options: dict[str, Any], seed: int, clusters: int) -> dict[str, Any]:
    """Train on planted data of that seed, with that seed; compare the clusters found with those planted."""
    config = RunConfig.model_validate(
        {
            "name": "clusters",
            "seed": seed,
            "data": {
                "kind": "planted",
                "tasks": 20,
                "clusters": [clusters],
                "width": 8,
                "train_rows": 200,
                "seed": seed,
            },
            "model": {
                "stages": [
                    {"kind": "hard", "block": {"kind": "linear", "width": 16, "activation": "tanh"}},
                    {"kind": "cluster", "clusters": clusters, "block": BLOCK, **options},
                ]
            },
            "trainer": {"epochs": 8, "batch_size": 256, "lr": 1e-2, "threads": 1},
        }
    )
    data = load_data(config.data)
    if data.truth is None:
        raise ValueError("planted data has no truth")
    began = time.process_time()
    with TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", dataset=data)
    layer = run.model.plan().stage("cluster")
    return {
        "seed": seed,
        "ari": round(float(adjusted_rand_score(data.truth.assignments[0], layer.assignment())), 3),
        "clusters": len(layer.blocks),
        "test_r2": round(run.mean_metric("test"), 4),
        "processor_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clusters", type=int, nargs="+", default=[2, 4], help="numbers of planted clusters")
    chosen = parser.parse_args()
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    console = Console()
    table = Table("cluster layer", "planted", "ARI, mean", "lowest", "K found", "test R2", box=None)
    for planted in chosen.clusters:
        for name, options in CASES.items():
            found = [recover(options, seed, planted) for seed in range(chosen.seeds)]
            results.setdefault(f"{planted} clusters", {})[name] = found
            aris = [each["ari"] for each in found]
            console.print(f"{planted} clusters, {name}: ARI {aris}", highlight=False)
            table.add_row(
                name,
                str(planted),
                f"{statistics.mean(aris):.2f}",
                f"{min(aris):.2f}",
                " ".join(str(each["clusters"]) for each in found),
                f"{statistics.mean(each['test_r2'] for each in found):.3f}",
            )
        console.print(f"written: {write_result('clusters', {'cases': results})}")
    console.print(table)


if __name__ == "__main__":
    main()

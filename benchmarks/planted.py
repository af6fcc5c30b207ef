"""Does a training find the sharing that was planted? Five seeds, cluster layers and experts.

python -m benchmarks.planted
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from benchmarks.common import write_result
from coterie.training import load_data, load_run_config, train

FROZEN = ("model.stages.1.freeze_after=8", "model.stages.2.freeze_after=8")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "clusters": ("planted-clusters", ()),
    "clusters, frozen after 8 epochs": ("planted-clusters", FROZEN),
    "experts": ("planted-experts", ()),
}


def recover(preset: str, seed: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train on planted data of that seed, with that seed; compare what was found with what was planted.

    Returns:
        The adjusted Rand index of each cluster layer, and the number of pairs of tasks that share an expert
        and should not, or do not and should.
    """
    config = load_run_config(
        preset, overrides=[f"seed={seed}", f"data.seed={seed}", "trainer.threads=1", *overrides]
    )
    data = load_data(config.data)
    if data.truth is None:
        raise ValueError(f"{preset} has no planted data")
    with TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", dataset=data)
    plan = run.model.plan()
    layers = [stage for stage in plan.stages if stage.kind == "cluster"]
    found: dict[str, Any] = {"seed": seed, "test_r2": round(run.mean_metric("test"), 4)}
    if layers:
        found["ari"] = [
            float(adjusted_rand_score(truth, layer.assignment()))
            for truth, layer in zip(data.truth.assignments, layers, strict=True)
        ]
    gated = [stage for stage in plan.stages if stage.kind == "gated"]
    if gated:
        used = gated[0].mixing_matrix() != 0
        shares = used.astype(int) @ used.T.astype(int) > 0
        truth = data.truth.experts @ data.truth.experts.T > 0
        found["wrong_pairs"] = int((shares != truth).sum() // 2)
        found["density"] = float(np.mean(gated[0].density()))
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    results: dict[str, list[dict[str, Any]]] = {}
    table = Table("planted", "seed", "found", "test R2", box=None)
    for name, (preset, overrides) in CASES.items():
        for seed in range(seeds):
            found = recover(preset, seed, overrides)
            results.setdefault(name, []).append(found)
            text = f"ARI {found['ari']}" if "ari" in found else f"{found['wrong_pairs']} of 190 pairs wrong"
            table.add_row(name, str(seed), text, f"{found['test_r2']:.3f}")
    Console().print(table)
    Console().print(f"written: {write_result('planted', {'cases': results})}")


if __name__ == "__main__":
    main()

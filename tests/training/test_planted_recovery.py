"""What was planted is found: clusters exactly, and who shares experts with whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from coterie.training import load_data, load_run_config, train

FREEZE = ("model.stages.1.freeze_after=7", "model.stages.2.freeze_after=7")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("overrides", [(), FREEZE], ids=["live", "frozen"])
@pytest.mark.parametrize("seed", range(5))
def test_every_cluster_layer_is_recovered_exactly(
    seed: int, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    config = load_run_config(
        "planted-clusters",
        overrides=[f"seed={seed}", f"data.seed={seed}", "trainer.epochs=9", "trainer.threads=1", *overrides],
    )
    data = load_data(config.data)
    run = train(config, tmp_path / "run", dataset=data, report=False)
    assert data.truth is not None
    layers = [stage for stage in run.model.plan().stages if stage.kind == "cluster"]
    found = [
        adjusted_rand_score(truth, layer.assignment())
        for truth, layer in zip(data.truth.assignments, layers, strict=True)
    ]
    assert found == [1.0, 1.0]
    assert [bool(stage.frozen) for stage in run.model.cluster_stages()] == [bool(overrides)] * 2


@pytest.mark.parametrize("seed", [0, 1])
def test_tasks_share_experts_as_planted(seed: int, tmp_path: Path) -> None:
    config = load_run_config(
        "planted-experts", overrides=[f"seed={seed}", f"data.seed={seed}", "trainer.threads=1"]
    )
    data = load_data(config.data)
    run = train(config, tmp_path / "run", dataset=data, report=False)
    assert data.truth is not None
    used = (run.model.plan().stage("experts").mixing_matrix() != 0).astype(int)
    planted = data.truth.experts
    assert np.array_equal(used @ used.T > 0, planted @ planted.T > 0)
    assert used.sum(axis=1).mean() < 2  # M is 6

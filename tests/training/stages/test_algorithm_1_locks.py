"""Algorithm 1 as printed keeps its first, accidental clusters; the defaults find those that were planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import adjusted_rand_score
from tests.training.making import run_config
from tests.training.runs import history

from coterie.training import load_data, train

TANH = {"kind": "linear", "width": 16, "activation": "tanh"}
BLOCK = {"kind": "mlp", "widths": [16, 16], "activation": "tanh"}
SIZE = {"tasks": 16, "features": 12, "width": 8, "outputs": 4}
DATA = {**SIZE, "train_rows": 150, "dev_rows": 30, "clusters": [2]}
PAPER = {"mode": "literal", "warmup": 0, "alike": False}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (PAPER, False),
        ({}, True),
        ({"alike": False}, False),
        ({"alike": False, "by": "function"}, True),
    ],
    ids=["as printed", "default", "weights that did not start alike", "functions"],
)
def test_planted_clusters_are_found_or_not(options: dict[str, Any], found: bool, tmp_path: Path) -> None:
    stages = [
        {"kind": "hard", "block": TANH},
        {"kind": "cluster", "clusters": 2, "block": BLOCK, **options},
    ]
    config = run_config(stages, data=DATA, epochs=6, batch_size=200)
    run = train(config, tmp_path / "run")
    truth = load_data(config.data).truth
    assert truth is not None
    score = adjusted_rand_score(truth.assignments[0], run.model.plan().stage("cluster").assignment())
    assert score == 1.0 if found else score < 0.6
    if options == PAPER:
        assignments = [record["assignments"]["cluster"] for record in history(tmp_path / "run")]
        assert all(each == assignments[0] for each in assignments)

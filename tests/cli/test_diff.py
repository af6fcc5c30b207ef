"""``coterie diff``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .conftest import Command


def test_a_bundle_equals_itself(bundle: Path, coterie: Command) -> None:
    result = coterie("diff", bundle, bundle)
    assert result.exit_code == 0
    assert result.output.strip() == "6 same, 0 changed, 0 added, 0 removed"


def test_two_trainings_differ(bundle: Path, config: Path, tmp_path: Path, coterie: Command) -> None:
    assert coterie("train", config, "--seed", "1", "--run", tmp_path / "run", "--quiet").exit_code == 0
    assert coterie("export", tmp_path / "run", tmp_path / "bundle").exit_code == 0
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.random.default_rng(0).standard_normal((30, 4), dtype=np.float32))

    result = coterie("diff", bundle, tmp_path / "bundle", "--input", inputs, "--json")
    assert result.exit_code == 1
    tasks = json.loads(result.stdout)["tasks"]
    assert {task["change"] for task in tasks} == {"changed"}
    for task in tasks:
        trunk = next(stage for stage in task["stages"] if stage["stage"] == "trunk")
        assert trunk["weights"] > 0.1
        assert task["answers"]["inputs"] == 30
        assert task["answers"]["largest"] > 0.01

    table = coterie("diff", bundle, tmp_path / "bundle")
    assert table.exit_code == 1
    assert "0 same, 6 changed" in table.output
    assert "trunk" in table.output

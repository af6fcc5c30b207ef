"""What columns are taken for, and numbers that would be lost without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coterie.runtime.errors import DataError
from coterie.training import dataset_of
from coterie.training.data import TableConfig, load_data
from coterie.training.yaml_config import load_config


def table(path: Path, target: list[str], **options: object) -> TableConfig:
    lines = [f"{n},{cell}" for n, cell in enumerate(target)]
    path.write_text("x,y\n" + "\n".join(lines) + "\n")
    return load_config(TableConfig, source={"path": str(path), "features": "x", "target": "y", **options})


NUMBERS = [f"{n * 0.37:.2f}" for n in range(60)]


@pytest.mark.parametrize("cell", ["n/a", "NA", "1,5", "?"])
def test_one_cell_that_is_no_number_makes_no_classes_of_the_others(tmp_path: Path, cell: str) -> None:
    target = [*NUMBERS[:8], f'"{cell}"', *NUMBERS[9:]]
    with pytest.raises(DataError) as caught:
        load_data(table(tmp_path / "x.csv", target))
    (problem,) = caught.value.problems
    assert problem.startswith(f"x.csv, line 10, column 'y': {cell!r} is not a number: correct the cell")
    assert "task_kind: classification" in problem


def test_codes_of_classes_may_be_numbers_and_names(tmp_path: Path) -> None:
    data = load_data(table(tmp_path / "x.csv", ["1", "2", "3", "none"] * 30))
    assert data.tasks[0].labels == ("1", "2", "3", "none")


@pytest.mark.parametrize("base", [1e9, -1e9, 1.7e9])
def test_numbers_that_float32_cannot_tell_apart_are_refused(base: float) -> None:
    generator = np.random.default_rng(0)
    inputs, target = generator.normal(size=(200, 2)), generator.normal(size=200)
    with pytest.raises(DataError, match=r"column 'target'.*float32 can tell.*subtract"):
        dataset_of(inputs, target + base)
    with pytest.raises(DataError, match=r"column 1: .*float32 can tell"):
        dataset_of(inputs + np.array([0, base]), target)
    data = dataset_of(inputs + np.array([0, 300]), target + 300)
    assert data.tasks[0].kind == "regression"


def test_a_target_too_large_for_float32_is_refused() -> None:
    with pytest.raises(DataError, match="too large for float32"):
        dataset_of(np.random.default_rng(0).normal(size=(50, 2)), np.linspace(0, 1e40, 50))

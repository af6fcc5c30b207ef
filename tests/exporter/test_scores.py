"""A bundle scores what the torch model scores, on data that was not learned from, or is not published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.making import LINEAR, run_config

from coterie.exporter import export_run
from coterie.exporter._held_out import HeldOut
from coterie.exporter._metrics import Measuring, compare_metrics
from coterie.exporter._verify import Checked
from coterie.runtime.errors import ExportError, ParityError
from coterie.training import Run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = run_config([{"kind": "hard", "block": LINEAR}], epochs=2)
    return train(config, tmp_path_factory.mktemp("scores") / "run", report=False)


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "bundle"
    manifest = export_run(run, folder)
    assert manifest.parity.metrics is not None
    assert manifest.parity.metrics < 5e-5
    for entry in manifest.tasks:
        assert entry.measured.keys() == {"test"}
        wanted = entry.metrics["test"]
        assert wanted
        assert entry.measured["test"] == pytest.approx(wanted, abs=5e-5)
    return folder


def checked(run: Run, bundle: Path) -> Checked:
    return Checked(bundle, run.data.inputs, run.data.tasks, [], "router.onnx")


def test_a_score_that_moves_a_metric_is_a_mistake_and_names_the_task(run: Run, bundle: Path) -> None:
    held_out = HeldOut(run)

    def other(inputs: torch.Tensor, row: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        scores = run.model(inputs, row, task).detach()
        return torch.where((task == 3)[:, None], -scores, scores)

    known = held_out.scores(other, "test")
    measuring = Measuring("test", lambda answer: held_out.scores(answer, "test"), known)
    with pytest.raises(ParityError, match=r"task '.*3' scores otherwise on the test split, by .*differs"):
        compare_metrics(checked(run, bundle), other, measuring, tolerance=1e-4, exact=True)
    found = compare_metrics(checked(run, bundle), other, measuring, tolerance=1e-4, exact=False)
    assert found.difference > 5e-5


def test_a_metric_that_moves_by_rounding_alone_is_none(run: Run, bundle: Path) -> None:
    held_out = HeldOut(run)
    known = {task: dict.fromkeys(values, 0.123) for task, values in run.metrics["test"].items()}
    measuring = Measuring("test", lambda answer: held_out.scores(answer, "test"), known)
    found = compare_metrics(checked(run, bundle), run.model, measuring, tolerance=1e-4, exact=True)
    assert found.difference > 0.01
    for task, values in run.metrics["test"].items():
        assert found.scores[task] == pytest.approx(values, abs=5e-5)


def test_other_data_than_the_run_s_is_not_scored_on(run: Run, tmp_path: Path) -> None:
    data = run.config.data.model_copy(update={"seed": 99})
    other = replace(run, config=run.config.model_copy(update={"data": data}))
    lines: list[str] = []
    manifest = export_run(other, tmp_path / "bundle", on_progress=lines.append)
    assert manifest.parity.metrics is None
    assert all(not entry.measured for entry in manifest.tasks)
    assert any("is not scored: the run's data is not what it was trained on" in line for line in lines)
    with pytest.raises(ExportError, match="not what it was trained on"):
        export_run(other, tmp_path / "another", column_drop=0.5)

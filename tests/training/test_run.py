"""Whole trainings, small ones: repeatability, resuming, stopping, and what a run folder holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.training.making import Killer, StopError, questions, run_config
from tests.training.runs import GATED, STAGES, config_of, history

from coterie.runtime.errors import CheckpointError, TrainingError
from coterie.runtime.plan import SharingPlan
from coterie.training import Run, Watcher, load_data, load_run, train
from coterie.training.loop.checkpoint import load_weights


class Copier(Watcher):
    """Copies the run folder at the end of an epoch, as a machine that dies there would leave it."""

    def __init__(self, folder: Path, copy: Path, epoch: int) -> None:
        self.folder, self.copy, self.at = folder, copy, epoch

    def epoch(self, record: dict[str, Any]) -> None:
        if record["epoch"] == self.at:
            shutil.copytree(self.folder, self.copy)


def assert_same(one: Path, other: Path) -> None:
    """Two run folders hold the same weights, optimiser states, generators and history, byte for byte."""
    assert (one / "best.safetensors").read_bytes() == (other / "best.safetensors").read_bytes()
    assert history(one) == history(other)
    checkpoints = sorted(path.name for path in (one / "checkpoints").iterdir())
    assert checkpoints == sorted(path.name for path in (other / "checkpoints").iterdir())
    for name in checkpoints:
        for file in ("model.safetensors", "state.safetensors", "state.json"):
            assert (one / "checkpoints" / name / file).read_bytes() == (
                other / "checkpoints" / name / file
            ).read_bytes(), f"{name}/{file}"
    for file in ("plan.json", "metrics.json", "samples.safetensors"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_the_same_seed_gives_the_same_run_byte_for_byte(whole: Run, tmp_path: Path) -> None:
    torch.manual_seed(99)
    train(config_of(), tmp_path / "again", report=False)
    assert_same(whole.folder, tmp_path / "again")


def test_another_seed_gives_other_weights(whole: Run, tmp_path: Path) -> None:
    other = train(config_of().model_copy(update={"seed": 1}), tmp_path / "other", report=False)
    assert (other.folder / "best.safetensors").read_bytes() != (
        whole.folder / "best.safetensors"
    ).read_bytes()


# A batch has 48 of 6 x 24 = 144 inputs: 3 batches an epoch. The layer is clustered in epoch 2, frozen in 5.
@pytest.mark.parametrize("batches", [1, 7, 14], ids=["at once", "while clustered", "while frozen"])
def test_a_killed_training_resumes_as_if_it_had_not_been(whole: Run, tmp_path: Path, batches: int) -> None:
    folder = tmp_path / "run"
    with pytest.raises(StopError):
        train(config_of(), folder, watcher=Killer(batches))
    assert len(history(folder)) == (batches - 1) // 3
    train(config_of(), folder, report=False)
    assert_same(whole.folder, folder)


def test_the_baseline_of_single_draws_is_resumed(tmp_path: Path) -> None:
    config = config_of([GATED], epochs=3, gate_samples=1)
    with pytest.raises(StopError):
        train(config, tmp_path / "run", watcher=Killer(5))
    train(config, tmp_path / "run", report=False)
    train(config, tmp_path / "whole", report=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("epoch", [2, 4, 5])
def test_a_run_folder_copied_midway_goes_on_to_the_same_end(whole: Run, tmp_path: Path, epoch: int) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    with pytest.raises(StopError):
        train(config_of(), folder, watcher=_Both(Copier(folder, copy, epoch), Killer(3 * epoch + 1)))
    # What a kill in the middle of writing leaves behind.
    (copy / "checkpoints" / ".epoch-00009").mkdir()
    (copy / "history.jsonl").open("a").write('{"epoch": 9, "tr')
    train(config_of(), copy, report=False)
    shutil.rmtree(copy / "checkpoints" / ".epoch-00009")
    assert_same(whole.folder, copy)


class _Both(Watcher):
    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def batch(self, *, loss: float, density: float | None) -> None:
        for each in self.watchers:
            each.batch(loss=loss, density=density)

    def epoch(self, record: dict[str, Any]) -> None:
        for each in self.watchers:
            each.epoch(record)


@pytest.fixture
def interrupted(whole: Run, tmp_path: Path) -> Path:
    """A copy of the whole run, without what is written at its end."""
    folder = tmp_path / "interrupted"
    shutil.copytree(whole.folder, folder)
    return folder


@pytest.mark.parametrize("file", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_serves(
    whole: Run, interrupted: Path, file: str, damage: str
) -> None:
    newest = interrupted / "checkpoints" / "epoch-00006"
    path = newest / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"{file} is missing or damaged: delete the folder epoch-00006"):
        train(config_of(), interrupted)
    if file == "state.json":
        shutil.rmtree(newest)
        train(config_of(), interrupted)
        assert history(interrupted) == history(whole.folder)
        weights = (whole.folder / "checkpoints" / newest.name / "model.safetensors").read_bytes()
        assert (newest / "model.safetensors").read_bytes() == weights


def test_a_checkpoint_of_another_model_is_refused(whole: Run, interrupted: Path, tmp_path: Path) -> None:
    other = train(config_of([STAGES[0]], epochs=1), tmp_path / "other", report=False)
    file = interrupted / "checkpoints" / "epoch-00006" / "model.safetensors"
    shutil.copy(other.folder / "best.safetensors", file)
    with pytest.raises(CheckpointError, match="not of this model"):
        train(config_of(), interrupted)
    model = load_run(whole.folder).model
    with pytest.raises(CheckpointError, match="not of this model"):
        load_weights(model, other.folder / "best.safetensors")


def test_a_folder_of_another_run_is_refused(whole: Run, interrupted: Path) -> None:
    before = (interrupted / "config.yaml").read_bytes()
    with pytest.raises(TrainingError, match=r"another configuration \(config.yaml differs\)"):
        train(config_of(lr=0.5), interrupted)
    with pytest.raises(TrainingError, match=r"another data \(data.json differs\)"):
        train(config_of(), interrupted, dataset=load_data(run_config(STAGES, data={"seed": 5}).data))
    assert (interrupted / "config.yaml").read_bytes() == before


def test_a_finished_run_is_not_trained_again(whole: Run, interrupted: Path) -> None:
    class Never(Watcher):
        def batch(self, **_: object) -> None:
            raise StopError

    train(config_of(), interrupted, watcher=Never())
    assert_same(whole.folder, interrupted)


# ---- what is in the folder


def test_a_run_folder_holds_what_it_promises(whole: Run) -> None:
    folder = whole.folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "best.safetensors", "checkpoints", "config.yaml", "data.json", "history.jsonl", "metrics.json",
        "plan.json", "plots", "report.html", "samples.safetensors", "tensorboard",
    }  # fmt: skip
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        "epoch-00005",
        "epoch-00006",
    ]
    plots = {path.name for path in (folder / "plots").iterdir()}
    assert plots == {
        "training.png", "assignments-layer.png", "clusters.png", "gates-experts.png", "density.png",
        "correlation-experts.png",
    }  # fmt: skip
    assert all((folder / "plots" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in plots)
    plan = SharingPlan.model_validate_json((folder / "plan.json").read_text())
    assert plan == whole.model.plan()
    assert [stage.name for stage in plan.stages] == ["input", "trunk", "experts", "layer", "head"]
    assert set(json.loads((folder / "metrics.json").read_text())) == {"dev", "test"}
    assert whole.samples().shape == (72, 6)


def test_the_history_has_a_line_an_epoch(whole: Run) -> None:
    records = history(whole.folder)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["train"]["loss"] < records[0]["train"]["loss"]
    assert set(records[0]["dev"]["tasks"]) == {spec.name for spec in whole.data.tasks}
    assert records[0]["stages"]["experts"]["density"] == pytest.approx(1.5, abs=0.3)
    assert records[0]["assignments"] == {}
    assert set(records[1]["assignments"]["layer"]) == {0, 1}
    # The assignment is final after the freeze.
    assert records[4]["assignments"] == records[5]["assignments"]
    assert records[5]["stages"]["layer"] == {"clusters": 2, "moved": 0, "ari": 1.0}
    assert len(records[0]["gates"]["experts"]) == 6


def test_tensorboard_has_the_same_scalars(whole: Run) -> None:
    events = EventAccumulator(str(whole.folder / "tensorboard"))
    events.Reload()
    wanted = [record["train"]["loss"] for record in history(whole.folder)]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(wanted)
    assert [event.step for event in events.Scalars("dev/metric")] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_loaded_without_its_data(whole: Run) -> None:
    loaded = load_run(whole.folder)
    assert loaded.metrics == whole.metrics
    assert loaded.config == whole.config
    inputs, (row, number) = torch.randn(5, 6) * 3 + 1, questions(20, rows=5, number_of_tasks=6)
    assert torch.equal(loaded.model(inputs, row, number), whole.model(inputs, row, number))
    frozen = loaded.model.freeze()
    torch.testing.assert_close(
        frozen(inputs, row, number), whole.model(inputs, row, number), atol=1e-5, rtol=1e-5
    )


def test_the_statistics_of_the_inputs_are_part_of_the_weights(whole: Run) -> None:
    values = load_data(whole.config.data).splits["train"].inputs.batch(np.arange(144))
    with safe_open(whole.folder / "best.safetensors", "pt") as file:
        mean = file.get_tensor(next(filter(lambda name: name.endswith("mean"), file.keys())))
    torch.testing.assert_close(mean, torch.from_numpy(values.mean(0)), atol=1e-5, rtol=0)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a finished run"):
        load_run(tmp_path)


def test_samples_that_are_lost_are_missed_only_when_asked_for(interrupted: Path) -> None:
    (interrupted / "samples.safetensors").write_bytes(b"")
    run = load_run(interrupted)
    with pytest.raises(CheckpointError, match="samples"):
        run.samples()


def test_damaged_best_weights_are_refused(interrupted: Path) -> None:
    path = interrupted / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged: train the run again"):
        load_run(interrupted)


def test_a_training_that_learned_nothing_says_so(tmp_path: Path) -> None:
    class Told(Watcher):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    nothing, something = Told(), Told()
    train(config_of(lr=1e-9), tmp_path / "nothing", watcher=nothing, report=False)
    assert len(nothing.notes) == 1
    assert "train for more epochs" in nothing.notes[0]
    train(config_of(epochs=30, lr=1e-2), tmp_path / "some", watcher=something, report=False)
    assert something.notes == []

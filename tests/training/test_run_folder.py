"""Whose a run folder is: nothing is written for a training that cannot start, and nothing trained is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.training.making import LINEAR, Killer, StopError, run_config
from tests.training.runs import CLUSTER, GATED, STAGES, config_of, history

from coterie.runtime.errors import CheckpointError, ConfigError, TrainingError
from coterie.training import Run, RunConfig, Watcher, load_run, train
from coterie.training.claim import claim
from coterie.training.loop.history import read_history
from coterie.training.run_data import RunData

HARD = {"kind": "hard", "block": LINEAR}


def other() -> RunConfig:
    return config_of([HARD], epochs=2)


def interrupted(folder: Path) -> None:
    """Leave a folder as a training that was killed in its first batch does."""
    with pytest.raises(StopError):
        train(config_of(), folder, watcher=Killer(1))


def test_a_model_that_cannot_be_built_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_clusters: is for clusters: auto"):
        train(config_of([{**CLUSTER, "max_clusters": 7}]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_checkpoint_gives_way_to_another_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupted(folder)
    (folder / "vectors.safetensors").write_bytes(b"of the other model")
    train(other(), folder, report=False)
    train(other(), tmp_path / "fresh", report=False)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "fresh").iterdir()}
    for name in ("config.yaml", "data.json", "best.safetensors", "plan.json", "metrics.json"):
        assert (folder / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert history(folder) == history(tmp_path / "fresh")


def test_what_only_the_training_itself_can_refuse_stands_in_nobodys_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.task_weights\.nobody"):
        train(config_of([HARD], epochs=1, task_weights={"nobody": 2.0}), tmp_path)
    assert train(other(), tmp_path, report=False).config == other()


@pytest.mark.parametrize("made", ["teachers", "teachers.safetensors", "best.safetensors", "metrics.json"])
def test_what_took_a_training_to_make_is_kept(tmp_path: Path, made: str) -> None:
    interrupted(tmp_path)
    (tmp_path / made).mkdir() if made == "teachers" else (tmp_path / made).touch()
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(TrainingError, match=r"another configuration \(config.yaml differs\)"):
        train(other(), tmp_path)
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert (tmp_path / made).exists()


@pytest.mark.parametrize("data", [None, "{}", "[1, 2]"])
def test_somebodys_own_files_are_not_overwritten(tmp_path: Path, data: str | None) -> None:
    (tmp_path / "config.yaml").write_text("mine: true", encoding="utf-8")
    if data is not None:
        (tmp_path / "data.json").write_text(data, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"config.yaml differs"):
        train(other(), tmp_path)
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "mine: true"
    assert len(list(tmp_path.iterdir())) == 1 + (data is not None)


def test_a_process_that_does_not_write_takes_no_folder(tmp_path: Path) -> None:
    interrupted(tmp_path)
    data = RunData.model_validate_json((tmp_path / "data.json").read_text(encoding="utf-8"))
    claim(tmp_path, config_of(), data)
    with pytest.raises(TrainingError, match="another configuration"):
        claim(tmp_path, other(), data)


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_is_no_run_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(TrainingError, match=r"t.csv is a file, not a folder: give another run folder"):
        train(other(), tmp_path / "t.csv" / below)


# ---- too few epochs


@pytest.mark.parametrize(
    ("stages", "least", "named"),
    [
        ([CLUSTER], 2, "layer"),
        ([{**CLUSTER, "warmup": 0, "start": 2}], 3, "layer"),
        ([{**CLUSTER, "clusters": "auto"}], 2, "layer"),
        ([{**CLUSTER, "by": "gradients", "warmup": 2}], 3, "layer"),
        ([{**CLUSTER, "warmup": 2}, {**CLUSTER, "name": "next", "freeze_after": None}, HARD], 4, "next"),
        ([{**GATED, "grouped": 2}, HARD], 3, "experts"),
    ],
)
def test_too_few_epochs_are_refused_before_the_training(
    tmp_path: Path, stages: list[dict[str, Any]], least: int, named: str
) -> None:
    said = f"is {least - 1}, but stage '{named}' has its tasks grouped after {least} epochs at the earliest"
    with pytest.raises(ConfigError, match=f"trainer.epochs: {said}: use at least {least},"):
        train(run_config(stages, epochs=least - 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(run_config(stages, epochs=least), tmp_path / "run", report=False)
    best = [record["epoch"] for record in history(tmp_path / "run") if record["best"]]
    assert best == [least]


def test_too_few_epochs_of_a_teacher_are_refused_before_any_training(tmp_path: Path) -> None:
    least = run_config([CLUSTER], epochs=2)
    teacher = {"number": 2, "trainer": {**least.trainer.model_dump(), "epochs": 1}}
    config = RunConfig.model_validate({**least.model_dump(), "distillation": {"teachers": [teacher]}})
    with pytest.raises(
        ConfigError, match=r"-teacher0: trainer.epochs: is 1, but stage 'layer' .* use at least 2,"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- a folder that has lost something


def test_best_weights_that_are_lost_are_missed(whole: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    (folder / "best.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"has lost best.safetensors"):
        train(config_of(STAGES), folder)


@pytest.mark.parametrize("file", ["data.json", "metrics.json"])
def test_a_damaged_file_is_told(whole: Run, tmp_path: Path, file: str) -> None:
    damaged = shutil.copytree(whole.folder, tmp_path / "run") / file
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"the run in .*run is damaged \(.*\): train it again"):
        load_run(tmp_path / "run")


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    class Second(Watcher):
        def epoch(self, record: dict[str, object]) -> None:  # noqa: ARG002
            with pytest.raises(TrainingError, match="another training is at work"):
                train(config_of(), tmp_path / "run", report=False)

    train(config_of(), tmp_path / "run", watcher=Second(), report=False)
    assert len(read_history(tmp_path / "run")) == config_of().trainer.epochs


def test_there_are_no_more_clusters_than_tasks(tmp_path: Path) -> None:
    run = train(config_of([{**CLUSTER, "clusters": 40}]), tmp_path / "run", report=False)
    (stage,) = [stage for stage in run.model.plan().stages if stage.kind == "cluster"]
    assert len(stage.blocks) <= len(run.data.tasks)

"""``coterie train``: settings by their names, in every spelling, wherever they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .conftest import TINY, Command


def settings(run: Path) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    "spelling",
    [
        ["{config}", "--trainer.epochs", "2", "--seed", "3"],
        ["{config}", "--trainer.epochs=2", "seed=3"],
        ["{config}", "trainer.epochs=2", "seed=3"],
        ["--trainer.epochs", "2", "--seed", "3", "{config}"],
        ["seed=3", "trainer.epochs=2", "{config}"],
    ],
)
def test_an_override_in_every_spelling(
    coterie: Command, config: Path, tmp_path: Path, spelling: list[str]
) -> None:
    words = [word.format(config=config) for word in spelling]
    result = coterie("train", *words, "--run", tmp_path / "run", "-q")
    assert result.exit_code == 0, result.output
    written = settings(tmp_path / "run")
    assert written["seed"] == 3
    assert written["trainer"]["epochs"] == 2  # type: ignore[index]
    assert len((tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_the_data_and_elements_of_lists_are_overridden_too(
    coterie: Command, config: Path, tmp_path: Path
) -> None:
    result = coterie(
        *("train", config, "--run", tmp_path / "run", "-q", "--trainer.epochs", "2"),
        *("--data.train_rows", "30", "--model.stages.2.clusters", "3"),
    )
    assert result.exit_code == 0, result.output
    written = settings(tmp_path / "run")
    assert written["data"]["train_rows"] == 30  # type: ignore[index]
    assert written["model"]["stages"][2]["clusters"] == 3  # type: ignore[index]


def test_a_data_file_and_an_override_of_its_path(coterie: Command, tmp_path: Path) -> None:
    rows = [f"{at % 2},{at},{at * at % 7}" for at in range(60)]
    (tmp_path / "real.csv").write_text("\n".join(["odd,x_1,x_2", *rows]), encoding="utf-8")
    (tmp_path / "data.yaml").write_text(
        "{kind: table, path: absent.csv, features: x_*, target: odd, dev_share: 0.3}", encoding="utf-8"
    )
    (tmp_path / "model.yaml").write_text(
        "model: {stages: [{kind: hard, block: {kind: linear, width: 4}}]}\ntrainer: {epochs: 1}",
        encoding="utf-8",
    )
    start = (
        "train",
        tmp_path / "model.yaml",
        "--data",
        tmp_path / "data.yaml",
        "--run",
        tmp_path / "run",
        "-q",
    )
    result = coterie(*start)
    assert result.exit_code == 2
    assert "absent.csv" in result.stderr
    result = coterie(*start, "--data.path", tmp_path / "real.csv")
    assert result.exit_code == 0, result.output


def test_every_mistake_is_told_at_once(coterie: Command, config: Path) -> None:
    result = coterie("train", config, "--trainer.epoch", "5", "seed=x", "--model.stages.9.clusters=1")
    assert result.exit_code == 2
    assert "did you mean 'epochs'" in result.stderr
    assert "seed: is 'x'" in result.stderr
    assert "model.stages.9.clusters" in result.stderr


def test_an_option_without_its_value(coterie: Command, config: Path) -> None:
    result = coterie("train", config, "--trainer.epochs")
    assert result.exit_code == 2
    assert "--path value" in result.stderr


def test_an_unknown_preset_is_met_with_the_closest(coterie: Command) -> None:
    result = coterie("train", "digit")
    assert result.exit_code == 2
    assert "did you mean 'digits'" in result.stderr


def test_another_configuration_in_the_same_run_folder(coterie: Command, run: Path, config: Path) -> None:
    result = coterie("train", config, "--run", run, "--seed", "8")
    assert result.exit_code == 2
    assert "another configuration" in result.stderr
    assert settings(run)["seed"] == 0


def test_the_advice_on_a_model_that_cannot_be_built_is_followed_in_the_same_folder(
    coterie: Command, config: Path, tmp_path: Path
) -> None:
    start = ("train", config, "--run", tmp_path / "run", "-q")
    result = coterie(*start, "model.stages.2.max_clusters=7")
    assert result.exit_code == 2
    assert "model.stages.2.max_clusters: is for clusters: auto; leave it out" in result.stderr
    result = coterie(*start, "model.stages.2.clusters=7")  # no more than there are tasks
    assert result.exit_code == 0, result.output


def test_too_few_epochs_are_refused_at_once(coterie: Command, tmp_path: Path) -> None:
    result = coterie("train", "digits", "--trainer.epochs", "3", "--run", tmp_path / "run")
    assert result.exit_code == 2
    assert "trainer.epochs: is 3, but stage 'cluster2'" in result.stderr
    assert "use at least 5" in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_same_command_again_finds_the_run_finished(coterie: Command, run: Path, config: Path) -> None:
    before = (run / "best.safetensors").read_bytes()
    result = coterie("train", config, "--run", run, "--quiet")
    assert result.exit_code == 0, result.output
    assert (run / "best.safetensors").read_bytes() == before


def test_the_result_says_what_comes_next(
    coterie: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    result = coterie("train", "tiny.yaml", "--trainer.epochs", "2")
    assert result.exit_code == 0, result.output
    assert "test: mean metric over 6 tasks 0." in result.stdout
    assert "coterie export runs/tiny" in result.stdout
    assert "epoch   2" in result.stderr
    metrics = json.loads(Path("runs/tiny/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"dev", "test"}

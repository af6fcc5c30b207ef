from __future__ import annotations

from pathlib import Path

import pytest

from coterie.runtime.errors import ConfigError
from coterie.training import list_presets, load_run_config

DATA = "kind: digits\nlabelled: 0.5\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.yaml"
    path.write_text(DATA)
    return path


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_valid_and_says_what_it_is(name: str, data: Path) -> None:
    config = load_run_config(name, data=data)
    assert config.data.kind == "digits"
    assert len(list_presets()[name]) > 20


def test_overrides_have_the_names_of_the_file() -> None:
    config = load_run_config("digits", overrides=["trainer.epochs=3", "--model.stages.1.experts", "9"])
    assert config.trainer.epochs == 3
    assert config.model.stages[1].experts == 9


def test_a_files_relative_data_paths_start_from_its_folder(tmp_path: Path, data: Path) -> None:
    own = tmp_path / "run.yaml"
    own.write_text(
        "data: {kind: table, path: a.csv, text: text, task: task, target: y}\nmodel: {stages: []}\n"
    )
    assert str(load_run_config(own).data.path["all"]) == str(tmp_path / "a.csv")
    elsewhere = tmp_path / "elsewhere" / "data.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text("{kind: table, path: b.csv, text: text, task: task, target: y}")
    assert str(load_run_config(own, data=elsewhere).data.path["all"]) == str(elsewhere.parent / "b.csv")


def test_a_files_paths_in_the_model_start_from_its_folder_too(tmp_path: Path) -> None:
    own = tmp_path / "run.yaml"
    own.write_text(
        """
        data: {kind: table, path: {train: a.csv, test: /b.csv}, text: text, task: task, target: y}
        model:
          stages:
            - {kind: hard, block: {kind: words, width: 3, vectors: glove.txt}}
            - kind: views
              views: {near: {kind: hf, folder: encoder}, far: [{kind: words, width: 3, vectors: /b.txt}]}
        """
    )
    config = load_run_config(own, overrides=["model.stages.0.block.vectors=here.txt"])
    assert config.data.path == {"train": tmp_path / "a.csv", "test": Path("/b.csv")}
    assert config.model.stages[0].block.vectors == Path("here.txt").absolute()
    assert load_run_config(own).model.stages[0].block.vectors == tmp_path / "glove.txt"
    assert config.model.stages[1].views["near"][0].folder == tmp_path / "encoder"
    assert config.model.stages[1].views["far"][0].vectors == Path("/b.txt")


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_run_config("digit")


def test_a_configuration_without_data_says_what_to_give_beside_every_other_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config("text", overrides=["trainer.epochs=0", "trainer.epoch=1"])
    text = "\n".join(caught.value.problems)
    for part in ("trainer.epochs: ", "trainer.epoch: ", "--data FILE.yaml"):
        assert part in text


def test_data_can_be_given_by_overrides_alone() -> None:
    assert load_run_config("text", overrides=["data.kind=digits"]).data.kind == "digits"


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "data: 3"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="own"):
        load_run_config(path)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coterie.runtime.errors import ConfigError
from coterie.training.data import (
    ArrayConfig,
    DigitsConfig,
    PlantedConfig,
    TableConfig,
    TokenOptions,
    read_data_config,
)
from coterie.training.yaml_config import dump_config

EXAMPLES = Path(__file__).parents[3] / "examples"
TABLE = {"kind": "table", "path": "x.csv", "task": "t", "target": "y", "text": "text"}


def problems(source: Any, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_data_config(source, overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"kind": "digits", "labelled": 0.3}, DigitsConfig(labelled=0.3)),
        ({"kind": "planted", "clusters": [2, 4]}, PlantedConfig(clusters=(2, 4))),
    ],
)
def test_the_kind_chooses_the_configuration(source: Any, expected: object) -> None:
    assert read_data_config(source) == expected


def test_single_names_are_lists_of_one() -> None:
    config = read_data_config({**TABLE, "labels": ["no", "yes"], "task_kind": "classification"})
    assert isinstance(config, TableConfig)
    assert config.target == ("y",)
    assert config.path == {"all": Path("x.csv").absolute()}
    assert config.labels == {"*": ("no", "yes")}
    assert config.task_kind == {"*": "classification"}


def test_paths_of_a_file_start_from_its_folder_and_overrides_from_here(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("kind: arrays\npath: {train: a.npz, test: /b.npz}\nimages: i\ntarget: y\n")
    config = read_data_config(file)
    assert isinstance(config, ArrayConfig)
    assert config.path == {"train": tmp_path / "a.npz", "test": Path("/b.npz")}
    config = read_data_config(file, ["path=c.npz"])
    assert isinstance(config, ArrayConfig)
    assert config.path == {"all": Path("c.npz").absolute()}


def test_a_key_that_stands_twice_is_listed_with_the_other_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("kind: digits\nseed: 1\nseed: 2\nlabeled: 0.5\n")
    with pytest.raises(ConfigError, match=r"data\.yaml has 2 mistakes"):
        read_data_config(file)


def test_numbers_may_be_names() -> None:
    config = read_data_config({**TABLE, "labels": [1, 2, 3], "target": 7})
    assert isinstance(config, TableConfig)
    assert config.labels == {"*": ("1", "2", "3")}
    assert config.target == ("7",)


def test_the_examples_are_valid(tmp_path: Path) -> None:
    config = read_data_config(EXAMPLES / "fdu-mtl" / "data.yaml", ["path=fdu-mtl.parquet"])
    assert isinstance(config, TableConfig)
    assert config.split is not None
    assert config.split.ignore == ("*",)


def test_a_dumped_configuration_is_read_back() -> None:
    config = read_data_config(
        {**TABLE, "labels": {"a": ["x", "y"]}, "split": {"column": "s", "train": ["a", "b"]}}
    )
    assert read_data_config(yaml.safe_load(dump_config(config))) == config


def test_every_mistake_has_the_path_that_was_written() -> None:
    assert set(problems({**TABLE, "spit": 1, "tokens": {"tokenizer": "word"}, "dev_share": 1.5})) == {
        "spit: unknown option 'spit': did you mean 'split'?",
        "tokens.tokenizer: is 'word': must be 'whitespace', 'words', 'bpe' or 'file' (did you mean 'words'?)",
        "dev_share: is 1.5: must be less than 1",
    }
    assert problems({"kind": "tables"}) == (
        "kind: is 'tables': must be one of table, arrays, memory, digits, planted (did you mean 'table'?)",
    )
    assert problems({}) == (
        "kind: is missing: add it; it must be one of table, arrays, memory, digits, planted",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": None}, "give either text"),
        ({"features": "x"}, "give either text"),
        ({"path": {"all": "x", "train": "y"}}, "not both"),
        ({"path": {"test": "y"}}, "a train file is missing"),
        ({"path": {"train": "y"}, "split": {"column": "s"}}, "leave one of the two out"),
        ({"target": []}, "target: is []: must have at least 1 element"),
        ({"tokens": {"tokenizer": "bpe", "vocabulary": 100}}, "tokens: a bpe tokenizer needs a vocabulary"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], said: str) -> None:
    (line,) = problems({**TABLE, **change})
    assert said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experts": 2, "experts_per_task": 3}, "experts_per_task"),
        ({"clusters": [4, 2]}, "a later layer has at least as many clusters"),
        ({"clusters": [30]}, "more clusters than tasks"),
        ({"expert_sets": 30}, "more sets of experts than tasks"),
        ({"task_kind": "classification", "outputs": 1}, "at least 2 classes"),
    ],
)
def test_impossible_plants_are_refused(change: dict[str, Any], said: str) -> None:
    (line,) = problems({"kind": "planted", **change})
    assert said in line


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TokenOptions().vocabulary = 3  # type: ignore[misc]

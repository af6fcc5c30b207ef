"""Data sets of arrays that a program has in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coterie.runtime.errors import ConfigError, DataError
from coterie.training import dataset_of, load_run_config, train
from coterie.training.data import ArrayConfig, TableConfig, load_data

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(60, 3)).astype(np.float32)
SHOP = np.array(["north", "south", "west"])[np.arange(60) % 3]
LABEL = np.where(FEATURES[:, 0] > 0, "buy", "leave")


def test_arrays_give_the_data_set_that_their_file_gives(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=FEATURES, shop=SHOP, target=LABEL, weight=np.arange(60))
    columns = {"features": "x", "task": "shop", "target": "target", "weight": "weight"}
    config = ArrayConfig.model_validate({"path": tmp_path / "data.npz", "dev_share": 0.2, **columns})
    made = dataset_of(FEATURES, LABEL, SHOP, weight=np.arange(60), dev_share=0.2)
    assert made.sha256 == load_data(config).sha256


def test_texts_give_the_data_set_that_their_table_gives(tmp_path: Path) -> None:
    texts = [f"word{number % 7} word{number % 5} word{number}" for number in range(60)]
    lines = [f"{shop},{text},{label}" for shop, text, label in zip(SHOP, texts, LABEL, strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(["shop,text,label", *lines]))
    columns = {"task": "shop", "text": "text", "target": "label", "tokens": {"min_frequency": 1}}
    config = TableConfig.model_validate({"path": tmp_path / "data.csv", "seed": 3, **columns})
    made = dataset_of(texts, LABEL, SHOP, tokens={"min_frequency": 1}, seed=3)
    assert made.sha256 == load_data(config).sha256


def test_each_column_of_the_target_is_a_task_and_nan_is_missing() -> None:
    target = np.stack([np.arange(60) % 2, np.arange(60) % 3]).T.astype(float)
    target[:10, 1] = np.nan
    made = dataset_of(FEATURES, target, names=["odd", "rest"])
    assert [(task.name, task.width) for task in made.tasks] == [("odd", 2), ("rest", 3)]
    asked = np.concatenate([split.task for split in made.splits.values()])
    assert np.bincount(asked).tolist() == [60, 50]


def test_equal_rows_are_stored_once_and_stay_in_one_split() -> None:
    twice = np.concatenate([FEATURES[:30], FEATURES[:30]])
    made = dataset_of(twice, np.arange(60) % 2, SHOP, dev_share=0.3)
    assert sum(len(split.inputs) for split in made.splits.values()) == 30


def test_images_and_given_splits_are_kept() -> None:
    images = GENERATOR.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    split = np.array(["train", "dev", "test"])[np.arange(60) // 20]
    made = dataset_of(images, LABEL, split=split)
    assert made.inputs[0].shape == (None, 4, 4, 1)
    assert {name: len(part) for name, part in made.splits.items()} == {"train": 20, "dev": 20, "test": 20}


def test_every_mistake_is_told_with_its_row() -> None:
    wrong = FEATURES.copy()
    wrong[4, 1] = np.inf
    with pytest.raises(DataError, match="row 5"):
        dataset_of(wrong, LABEL)
    with pytest.raises(DataError) as caught:
        dataset_of(FEATURES, LABEL, SHOP[:59], weight=[-1.0] * 60)
    assert "shape [59] for 60 inputs" in str(caught.value)
    with pytest.raises(DataError, match="is not a weight"):
        dataset_of(FEATURES, LABEL, weight=[-1.0] * 60)
    with pytest.raises(DataError, match="a list of texts"):
        dataset_of(["a text", ""], [0, 1])
    with pytest.raises(ConfigError, match="dev_share"):
        dataset_of(FEATURES, LABEL, dev_share=2)


def test_a_training_takes_the_data_set_and_says_where_it_is_from(tmp_path: Path) -> None:
    stages = [{"kind": "hard", "block": {"kind": "linear", "width": 4}}]
    source = {"data": {"kind": "memory"}, "model": {"stages": stages}, "trainer": {"epochs": 1}}
    config = load_run_config(source, overrides=["seed=3"])
    with pytest.raises(DataError, match="dataset_of"):
        train(config, tmp_path / "none")
    run = train(config, tmp_path / "run", dataset=dataset_of(FEATURES, LABEL, SHOP), report=False)
    assert run.config.seed == 3
    assert run.data.tasks[0].labels == ("buy", "leave")
    assert source["data"] == {"kind": "memory"}

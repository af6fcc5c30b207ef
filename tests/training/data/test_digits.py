from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from coterie.training.data import Dataset, DigitsConfig, load_data


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data(DigitsConfig())


def test_there_are_twenty_tasks_and_their_heads_differ(digits: Dataset) -> None:
    names = [task.name for task in digits.tasks]
    assert names[:3] == ["is_zero", "is_one", "is_two"]
    assert names[-1] == "ink"
    assert {"odd", "letters_in_name", "remainder_by_four"} < set(names)
    widths = [task.width for task in digits.tasks]
    assert len(widths) == 20
    assert sum(width == 2 for width in widths) == 16
    assert sorted(width for width in widths if width > 2) == [3, 3, 3, 4]


def test_every_image_is_stored_once_and_asked_of_all_tasks(digits: Dataset) -> None:
    sizes = {name: len(split.inputs) for name, split in digits.splits.items()}
    assert sum(sizes.values()) == 1797
    for split in digits.splits.values():
        assert len(split) == 20 * len(split.inputs)
        assert np.array_equal(np.bincount(split.row), np.full(len(split.inputs), 20))
    whole = np.concatenate([s.inputs.batch(np.arange(len(s.inputs))) for s in digits.splits.values()])
    expected = load_digits().data.astype(np.float32)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, expected))


def test_the_ten_detectors_tell_each_digit_from_the_rest(digits: Dataset) -> None:
    raw = load_digits()
    known = {
        image.astype(np.float32).tobytes(): int(digit)
        for image, digit in zip(raw.data, raw.target, strict=True)
    }
    for split in digits.splits.values():
        images = split.inputs.batch(split.row)
        digit = np.array([known[image.tobytes()] for image in images])
        detector = split.task < 10
        assert np.array_equal(split.target[detector, 0], (split.task == digit)[detector])
        over_four = split.task == [task.name for task in digits.tasks].index("over_four")
        assert np.array_equal(split.target[over_four, 0], digit[over_four] > 4)


def test_every_class_of_every_task_is_in_every_split(digits: Dataset) -> None:
    for split in digits.splits.values():
        for number, task in enumerate(digits.tasks):
            assert set(split.target[split.of_task(number), 0]) == set(range(task.width))


def test_the_splits_depend_on_the_seed_alone(digits: Dataset) -> None:
    assert load_data(DigitsConfig()).sha256 == digits.sha256
    assert load_data(DigitsConfig(seed=1)).sha256 != digits.sha256


def test_each_task_may_know_its_own_share_of_the_training_images() -> None:
    data = load_data(DigitsConfig(labelled=0.1, train_share=0.5))
    train = data.splits["train"]
    assert 480 < len(train.inputs) < 510
    counts = np.bincount(train.task, minlength=20)
    assert counts.min() > 40
    assert counts.max() < 60
    assert set(train.row[train.of_task(0)]) != set(train.row[train.of_task(1)])
    assert len(data.splits["test"]) == 20 * len(data.splits["test"].inputs)


def test_images_have_a_channel_and_bytes() -> None:
    data = load_data(DigitsConfig(images=True))
    assert data.inputs[0].model_dump() == {"name": "image", "dtype": "uint8", "shape": (None, 8, 8, 1)}
    batch = data.splits["train"].inputs.batch(np.arange(3))
    assert batch.dtype == np.uint8
    assert batch.shape == (3, 8, 8, 1)
    assert batch.max() <= 16

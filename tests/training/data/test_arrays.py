from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.runtime.errors import DataError
from coterie.training.data import ArrayConfig, Dataset, load_data

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)
COARSE = (np.arange(60) % 3).astype(np.uint8)
# Each of 3 superclasses has 4 classes, whose numbers are spread over 0 to 11.
FINE = ((np.arange(60) // 3 % 4) * 3 + (2 - COARSE)).astype(np.uint8)
COARSE_NAMES = np.array(["fish", "birds", "trees"])
FINE_NAMES = np.array([f"kind{number}" for number in range(12)])
BY_SUPERCLASS = {"images": "images", "task": "coarse", "target": "fine"}
NAMES = {"task_names": "coarse_names", "target_names": "fine_names"}


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def load(path: Any, **options: Any) -> Dataset:
    return load_data(ArrayConfig.model_validate({"path": path, **options}))


def problems(path: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(path, **options)
    return caught.value.problems


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save(
        tmp_path / "images.npz",
        images=IMAGES,
        coarse=COARSE,
        fine=FINE,
        coarse_names=COARSE_NAMES,
        fine_names=FINE_NAMES,
    )


def test_a_fine_class_is_ranked_within_its_superclass(images: Path) -> None:
    data = load(images, **BY_SUPERCLASS, **NAMES)
    assert [task.name for task in data.tasks] == sorted(COARSE_NAMES)
    fish = next(task for task in data.tasks if task.name == "fish")
    assert fish.labels == ("kind2", "kind5", "kind8", "kind11")
    assert data.inputs[0].model_dump() == {"name": "image", "dtype": "uint8", "shape": (None, 4, 5, 3)}
    train = data.splits["train"]
    assert set(train.target[:, 0]) == {0, 1, 2, 3}
    for row, task, target in zip(train.row, train.task, train.target[:, 0], strict=True):
        image = train.inputs.batch(np.array([row]))[0]
        at = int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0])
        assert data.tasks[task].name == COARSE_NAMES[COARSE[at]]
        assert data.tasks[task].labels[int(target)] == FINE_NAMES[FINE[at]]


def test_without_names_tasks_and_classes_are_called_by_their_numbers(images: Path) -> None:
    data = load(images, **BY_SUPERCLASS)
    assert [(task.name, task.labels) for task in data.tasks] == [
        ("0", ("2", "5", "8", "11")),
        ("1", ("1", "4", "7", "10")),
        ("2", ("0", "3", "6", "9")),
    ]


def test_many_classes_with_names_are_classes_and_can_be_shared(images: Path) -> None:
    data = load(images, **BY_SUPERCLASS, **NAMES, classes="shared")
    assert all(task.labels == tuple(FINE_NAMES) for task in data.tasks)


def test_train_and_test_may_be_two_archives(images: Path, tmp_path: Path) -> None:
    test = save(tmp_path / "test.npz", images=IMAGES[:12] // 2, coarse=COARSE[:12], fine=FINE[:12])
    data = load({"train": images, "test": test}, **BY_SUPERCLASS, dev_share=0.2)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 48, "dev": 12, "test": 12}
    assert np.bincount(data.splits["dev"].task).tolist() == [4, 4, 4]
    test_split = data.splits["test"]
    assert np.array_equal(test_split.inputs.batch(test_split.row), IMAGES[:12] // 2)


def test_a_smaller_training_set_is_drawn_for_each_task_alike(images: Path) -> None:
    train = load(images, **BY_SUPERCLASS, train_share=0.5).splits["train"]
    assert np.bincount(train.task).tolist() == [9, 9, 9]


def test_an_array_of_labels_for_each_task(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    path = save(
        tmp_path / "x.npz", x=x, big=(x[:, 0] > 0), size=x[:, 1], split=np.array(["train", "dev"] * 20)
    )
    data = load(path, features="x", target=["big", "size"], split={"column": "split"})
    assert [(task.name, task.kind) for task in data.tasks] == [
        ("big", "classification"),
        ("size", "regression"),
    ]
    train = data.splits["train"]
    assert len(train.inputs) == 20
    mine = train.of_task(1)
    assert np.allclose(train.target[mine, 0], train.inputs.batch(train.row[mine])[:, 1])


def test_a_matrix_has_a_task_for_each_column_and_nan_is_not_labelled(tmp_path: Path) -> None:
    y = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(np.float32)
    y[::4, 1] = np.nan
    path = save(tmp_path / "x.npz", x=np.arange(80.0).reshape(40, 2), y=y, names=np.array(["a", "b", "c"]))
    data = load(path, features="x", target="y", task_names="names")
    assert [task.name for task in data.tasks] == ["a", "b", "c"]
    assert sum(len(split.of_task(1)) for split in data.splits.values()) == 30
    assert [task.name for task in load(path, features="x", target="y").tasks] == ["y[0]", "y[1]", "y[2]"]


def test_questions_may_be_arrays_of_their_own(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    row, task = generator.integers(0, 20, 90), np.array(["a", "b"])[generator.integers(0, 2, 90)]
    target = (row % 2).astype(np.int64)
    path = save(
        tmp_path / "x.npz", x=np.arange(20.0)[:, None], row=row, task=task, target=target, w=row + 1.0
    )
    data = load(path, features="x", row="row", task="task", target="target", weight="w")
    train = data.splits["train"]
    assert train.weight is not None
    number = train.inputs.batch(train.row)[:, 0]
    assert np.array_equal(train.target[:, 0], number % 2)
    assert np.array_equal(train.weight, number + 1)
    assert sum(len(split) for split in data.splits.values()) == 90


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", images=IMAGES[..., 0], y=COARSE)
    assert load(path, images="images", target="y").inputs[0].shape == (None, 4, 5, 1)


def test_all_wrong_arrays_are_listed(images: Path, tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.npz", images=IMAGES.astype(float), coarse=COARSE[:9], fine=FINE[:, None, None], w=FINE
    )
    assert set(problems(path, **BY_SUPERCLASS)) == {
        "x.npz, array 'images': holds float64: "
        "images are uint8, from 0 to 255; take any other numbers as features",
    }
    path = save(tmp_path / "y.npz", images=IMAGES, coarse=COARSE[:9], fine=FINE[:, None, None])
    assert set(problems(path, **BY_SUPERCLASS, weight="importance")) == {
        "y.npz, array 'coarse': has 9 elements for 60 rows: give one for each row",
        "y.npz, array 'fine': has shape [60, 1, 1]: target takes 1 or 2 dimensions",
        "y.npz: has no array 'importance', which weight names: the arrays are images, coarse, fine",
    }
    assert problems(images, **{**BY_SUPERCLASS, "images": "image"}) == (
        "images.npz: has no array 'image', which images names: did you mean 'images'?",
    )


def test_wrong_cells_are_listed_by_row(images: Path, tmp_path: Path) -> None:
    coarse, fine = COARSE.astype(np.int64), FINE.astype(np.int64)
    coarse[4], fine[7], fine[9] = 3, 12, -1
    path = save(
        tmp_path / "x.npz",
        images=IMAGES,
        coarse=coarse,
        fine=fine,
        coarse_names=COARSE_NAMES,
        fine_names=FINE_NAMES,
    )
    found = problems(path, **BY_SUPERCLASS, **NAMES)
    assert found[0] == (
        "x.npz, row 5, array 'coarse': '3' is out of range: there are 3 task names, counted from 0"
    )
    assert set(found[1:]) == {
        f"x.npz, row {row}, array 'fine': '{label}' is out of range: the labels count from 0 to 11 "
        "(set labels, or correct the cell)"
        for row, label in ((8, 12), (10, -1))
    }


def test_features_that_are_not_finite_and_rows_that_are_no_input_are_listed(tmp_path: Path) -> None:
    x = np.ones((6, 2))
    x[1, 1], x[3, 0] = np.nan, np.inf
    path = save(
        tmp_path / "x.npz", x=x, row=np.array([0, 6, -1]), task=np.array(["t"] * 3), y=np.array([0, 1, 0])
    )
    assert set(problems(path, features="x", row="row", task="task", target="y")) == {
        "x.npz, row 2, array 'row': 6 is no input: they are counted from 0 to 5",
        "x.npz, row 3, array 'row': -1 is no input: they are counted from 0 to 5",
        "x.npz, row 2, array 'x', column 1: is nan: "
        "features are finite numbers of float32; correct or remove the row",
        "x.npz, row 4, array 'x', column 0: is inf: "
        "features are finite numbers of float32; correct or remove the row",
    }


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path.touch, (marker,))

    np.savez(tmp_path / "x.npz", images=IMAGES, fine=np.array([Evil()] * 60, dtype=object))
    assert problems(tmp_path / "x.npz", images="images", target="fine") == (
        "x.npz, array 'fine': holds Python objects: save numbers or strings",
    )
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Evil()))
    assert problems(tmp_path / "y.npz", images="images", target="fine") == (
        "y.npz: is not a NumPy archive: write it with numpy.savez",
    )
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text", b"\x93NUMPY nonsense", None])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.npz").write_bytes(content)
    (line,) = problems(tmp_path / "x.npz", images="images", target="y")
    assert line.startswith("x.npz: ")


def test_a_damaged_array_is_named(images: Path) -> None:
    content = bytearray(images.read_bytes())
    content[content.index(IMAGES.tobytes()[:50]) + 7] ^= 1
    images.write_bytes(content)
    assert problems(images, **BY_SUPERCLASS) == (
        "images.npz, array 'images': is damaged: write the file again",
    )


def test_a_single_array_file_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    assert problems(tmp_path / "x.npy", images="images", target="y") == (
        "x.npy: is not a NumPy archive: write it with numpy.savez",
    )


def test_archives_must_agree(images: Path, tmp_path: Path) -> None:
    test = save(tmp_path / "test.npz", images=IMAGES[:12, :2], coarse=COARSE[:12], fine=FINE[:12])
    (line,) = problems({"train": images, "test": test}, **BY_SUPERCLASS)
    assert line.startswith(
        "the inputs differ in shape ([60, 4, 5, 3] in images.npz, [12, 2, 5, 3] in test.npz)"
    )

from __future__ import annotations

import numpy as np
import pytest

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.data._dataset import DenseInputs, Split, TokenInputs, checksum


def test_tokens_are_padded_to_the_longest_of_the_batch() -> None:
    inputs = TokenInputs.of([[5, 6], [7], [8, 9, 4]], pad_id=0)
    assert len(inputs) == 3
    assert inputs.batch(np.array([1, 0])).tolist() == [[7, 0], [5, 6]]
    assert inputs.batch(np.array([2, 1, 2])).tolist() == [[8, 9, 4], [7, 0, 0], [8, 9, 4]]
    assert inputs.batch(np.array([1])).dtype == np.int64


def test_a_batch_of_no_inputs_keeps_its_dimensions() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert TokenInputs.of([[5, 6]]).batch(none).shape == (0, 1)
    assert TokenInputs.of([]).batch(none).shape == (0, 1)
    assert DenseInputs(np.zeros((4, 3), dtype=np.float32)).batch(none).shape == (0, 3)


def test_the_padding_id_is_kept() -> None:
    assert TokenInputs.of([[5], [6, 7]], pad_id=3).batch(np.array([0, 1])).tolist() == [[5, 3], [6, 7]]


@pytest.mark.parametrize("part", ["inputs", "row", "task", "target", "weight", "name", "labels"])
def test_the_checksum_depends_on_every_part(part: str) -> None:
    def make(changed: str | None) -> str:
        def numbers(name: str, dtype: str = "int64") -> np.ndarray:
            return np.array([0, 1, int(changed == name)], dtype=dtype)

        split = Split(
            inputs=DenseInputs(numbers("inputs", "float32")[:, None]),
            row=numbers("row"),
            task=numbers("task"),
            target=numbers("target", "float32")[:, None],
            weight=numbers("weight", "float32"),
        )
        labels = ("no", "maybe" if changed == "labels" else "yes")
        name = "other" if changed == "name" else "task"
        tasks = [TaskSpec(name=name, kind="classification", labels=labels)]
        spec = TensorSpec(name="inputs", dtype="float32", shape=(None, 1))
        return checksum((spec,), tasks, {"train": split}, None)

    assert make(None) == make(None)
    assert make(part) != make(None)

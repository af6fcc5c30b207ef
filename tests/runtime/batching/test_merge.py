from __future__ import annotations

import numpy as np

from coterie.runtime.batching._merge import merge
from coterie.runtime.engine._asked import Asked


def asked(inputs: list[list[float]], row: list[int], task: list[int]) -> Asked:
    return Asked({"inputs": np.array(inputs, dtype=np.float32)}, np.array(row), np.array(task))


def test_equal_inputs_are_there_once_and_every_question_finds_its_own() -> None:
    first = asked([[1, 2], [3, 4]], [0, 1, 1], [5, 6, 7])
    second = asked([[3, 4], [9, 9]], [1, 0], [8, 5])
    merged = merge([first, second])
    assert merged.asked.inputs["inputs"].tolist() == [[1, 2], [3, 4], [9, 9]]
    assert merged.asked.row.tolist() == [0, 1, 1, 2, 1]
    assert merged.asked.task.tolist() == [5, 6, 7, 8, 5]
    values = np.arange(5, dtype=np.float32)[:, None]
    assert [merged.cut(values, number, words=False).ravel().tolist() for number in (0, 1)] == [
        [0, 1, 2],
        [3, 4],
    ]


def test_shorter_sequences_are_padded_and_cut_back() -> None:
    first = Asked({"inputs": np.array([[4, 5]])}, np.array([0]), np.array([0]))
    second = Asked({"inputs": np.array([[6, 7, 8]])}, np.array([0]), np.array([0]))
    merged = merge([first, second])
    assert merged.asked.inputs["inputs"].tolist() == [[4, 5, 0], [6, 7, 8]]
    scores = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    assert merged.cut(scores, 0, words=True).shape == (1, 2, 1)
    assert merged.cut(scores, 1, words=True).shape == (1, 3, 1)


def test_one_request_is_run_as_it_is() -> None:
    only = asked([[1, 2], [1, 2]], [0, 1], [0, 0])
    assert merge([only]).asked is only


def test_inputs_of_several_tensors_are_equal_where_every_tensor_is() -> None:
    def both(tokens: list[int], number: float) -> Asked:
        inputs = {"text": np.array([tokens]), "table": np.array([[number]], dtype=np.float32)}
        return Asked(inputs, np.array([0]), np.array([0]))

    merged = merge([both([4, 5], 1), both([4, 5, 0], 1), both([4, 5], 2), both([6], 1)])
    assert merged.asked.row.tolist() == [0, 0, 1, 2]
    assert merged.asked.inputs["text"].tolist() == [[4, 5, 0], [4, 5, 0], [6, 0, 0]]
    assert merged.asked.inputs["table"].tolist() == [[1], [2], [1]]

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.training.making import dataset_of, task, tasks

from coterie.training.data import Split
from coterie.training.first import first_block, target_scale
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.evaluate import answer_all, evaluate
from coterie.training.loop.losses import QuestionLoss

ROW = [3, 0, 3, 1, 3, 0, 5]  # Nobody asks about inputs 2 and 4.
TASK = [0, 0, 1, 2, 2, 1, 0]


def split(weight: np.ndarray | None = None) -> Split:
    inputs = np.arange(12.0).reshape(6, 2)
    target = np.arange(7.0).reshape(7, 1)
    return dataset_of(tasks(3), inputs, ROW, TASK, target, weight=weight).splits["train"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_question_comes_once_with_its_input(size: int, seed: int | None) -> None:
    source = BatchSource(split(), 3)
    if seed is None:
        batches = list(source.batches(size))
    else:
        batches = [source.batch(each) for each in source.epoch(size, np.random.default_rng(seed))]
    assert len(batches) == source.number(size)
    seen = []
    for batch in batches:
        assert len(batch.inputs) <= size
        assert sorted(set(batch.row.tolist())) == list(range(len(batch.inputs)))  # Each input is asked about.
        for index, question in enumerate(batch.question.tolist()):
            seen.append(question)
            assert batch.inputs[batch.row[index]].tolist() == [2.0 * ROW[question], 2.0 * ROW[question] + 1]
            assert int(batch.task[index]) == TASK[question]
            assert batch.target[index].tolist() == [float(question)]
    assert sorted(seen) == list(range(7))


def test_all_questions_about_an_input_are_in_one_batch() -> None:
    for batch in BatchSource(split(), 3).batches(1):
        assert len(batch.task) == ROW.count(ROW[int(batch.question[0])])


def test_the_order_is_the_generators() -> None:
    source = BatchSource(split(), 3)

    def order(seed: int) -> list[int]:
        return [int(q) for batch in source.epoch(1, np.random.default_rng(seed)) for q in batch]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_balanced_tasks_weigh_the_same_and_as_much_as_before() -> None:
    (batch,) = BatchSource(split(), 3, balance=True).batches(100)
    total = torch.zeros(3).index_add(0, batch.task, batch.weight)
    torch.testing.assert_close(total, torch.full((3,), 7 / 3))
    (plain,) = BatchSource(split(), 3).batches(100)
    assert plain.weight.tolist() == [1.0] * 7


def test_questions_weights_go_with_them() -> None:
    weight = np.arange(1.0, 8.0, dtype=np.float32)
    for balance in (False, True):
        (batch,) = BatchSource(split(weight), 3, balance=balance).batches(100)
        ratio = batch.weight.numpy() / weight[batch.question]
        for number in range(3):
            same = ratio[batch.task.numpy() == number]
            np.testing.assert_allclose(same, same[0], rtol=1e-6)
        assert balance or np.allclose(ratio, 1.0)


def test_tasks_can_be_given_weights() -> None:
    (batch,) = BatchSource(split(np.full(7, 3.0)), 3, task_weights={1: 0.5, 2: 0.0}).batches(100)
    assert batch.weight.tolist() == [[3.0, 1.5, 0.0][TASK[question]] for question in batch.question]


def test_questions_without_an_answer_weigh_nothing() -> None:
    target = np.arange(14.0).reshape(7, 2)
    target[2], target[3, 0] = np.nan, np.nan
    data = dataset_of(tasks(3), np.zeros((6, 2)), ROW, TASK, target)
    (batch,) = BatchSource(data.splits["train"], 3).batches(100)
    assert batch.weight.tolist() == [float(question != 2) for question in batch.question]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_the_parts_of_a_batch_share_no_input_and_are_together_the_batch(parts: int) -> None:
    source = BatchSource(split(), 3)
    questions = np.array([6, 1, 2, 0, 4])
    batches = [source.batch(questions, part, parts) for part in range(parts)]
    assert sum(len(batch.inputs) for batch in batches) == 3
    assert sorted(np.concatenate([batch.place for batch in batches])) == list(range(5))
    for batch in batches:
        assert batch.whole == 5
        assert batch.question.tolist() == questions[batch.place.numpy()].tolist()
        for index, question in enumerate(batch.question):
            assert float(batch.inputs[batch.row[index], 0]) == 2.0 * ROW[question]


def test_a_task_without_questions_makes_no_nan_when_balanced() -> None:
    (batch,) = BatchSource(split(), 5, balance=True).batches(100)
    assert torch.isfinite(batch.weight).all()


def test_answers_are_in_the_order_of_the_questions_whatever_the_batches() -> None:
    source = BatchSource(split(), 3)

    def answer(inputs: torch.Tensor, row: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return torch.stack([inputs[row, 0], number.float()], dim=1)

    for size in (1, 2, 100):
        found = answer_all(answer, source, size)
        assert found.tolist() == [[2.0 * row, float(number)] for row, number in zip(ROW, TASK, strict=True)]


def test_the_compared_metric_is_the_mean_over_tasks_that_have_one() -> None:
    specs = (task("a"), task("b"), task("nobody asks"))
    data = dataset_of(specs, np.zeros((4, 1)), [0, 1, 2, 3], [0, 0, 0, 1], np.array([[0], [1], [1], [0]]))

    def always_first(inputs: torch.Tensor, row: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[2.0, 0.0]]).expand(len(row), 2)

    source = BatchSource(data.splits["dev"], 3)
    scores = evaluate(always_first, source, specs, QuestionLoss(specs, torch.ones(3, 2)))
    assert scores.tasks == {
        "a": {"accuracy": pytest.approx(1 / 3)},
        "b": {"accuracy": 1.0},
        "nobody asks": {},
    }
    assert scores.metric == pytest.approx((1 / 3 + 1) / 2)
    logs = torch.log_softmax(torch.tensor([2.0, 0.0]), 0)
    assert scores.loss == pytest.approx(float(-(2 * logs[0] + 2 * logs[1]) / 4))


def test_inputs_are_standardised_by_the_train_split_and_constants_left_alone() -> None:
    inputs = np.random.default_rng(0).standard_normal((100, 3)) * [1, 50, 0] + [0, 7, 3]
    data = dataset_of(tasks(1), inputs, range(100), [0] * 100, np.zeros((100, 1)))
    block = first_block(data)
    assert block is not None
    states = block(torch.from_numpy(inputs.astype(np.float32)))
    torch.testing.assert_close(states.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(states.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_regression_targets_are_measured_where_they_are_known() -> None:
    specs = [task("class"), task("number", "regression", 2)]
    nan = float("nan")
    target = np.array([[1, nan], [2.0, 5.0], [4.0, nan], [6.0, 5.0]])
    shift, scale = target_scale(dataset_of(specs, np.zeros((4, 1)), range(4), [0, 1, 1, 1], target))
    assert shift.tolist() == [[0.0, 0.0], [4.0, 5.0]]
    assert scale[0].tolist() == [1.0, 1.0]
    assert scale[1].tolist() == pytest.approx(
        [np.std([2, 4, 6]), 1.0]
    )  # A constant target is not divided by 0.

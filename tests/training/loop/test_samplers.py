from __future__ import annotations

import numpy as np
import pytest
from tests.training.making import dataset_of, tasks

from coterie.training.loop.batches import BatchSource
from coterie.training.loop.samplers import Rates, draw_inputs, draw_questions

COUNTS = np.array([900, 90, 10, 0])
OF_TASK = [np.arange(900), np.arange(900, 990), np.arange(990, 1000), np.arange(0)]


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        (Rates(sampler="proportional"), [0.9, 0.09, 0.01, 0]),
        (Rates(sampler="uniform"), [1 / 3, 1 / 3, 1 / 3, 0]),
        (Rates(sampler="temperature", temperature=1), [0.9, 0.09, 0.01, 0]),
        (Rates(sampler="temperature", temperature=2), np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()),
        (Rates(sampler="temperature", temperature=1e9), [1 / 3, 1 / 3, 1 / 3, 0]),
    ],
)
def test_tasks_are_asked_at_their_rates(rates: Rates, wanted: list[float]) -> None:
    np.testing.assert_allclose(rates.shares(COUNTS), wanted, atol=1e-6)
    drawn = draw_questions(OF_TASK, rates, 20_000, np.random.default_rng(0))
    found = [np.isin(drawn, questions).mean() for questions in OF_TASK]
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_no_question_comes_again_before_all_of_its_task_came() -> None:
    drawn = draw_questions(OF_TASK, Rates(sampler="uniform"), 1000, np.random.default_rng(0))
    small = drawn[drawn >= 990]
    assert len(small) > 200
    for start in range(0, len(small) - 9, 10):
        assert len(set(small[start : start + 10])) == 10
    large = drawn[drawn < 900]
    assert len(set(large)) == len(large)


def source(sampler: str) -> BatchSource:
    """20 inputs labelled for task 0, 2 of them for task 1 too, and one question without an answer."""
    row, number = [*range(20), 3, 7, 9], [0] * 20 + [1, 1, 1]
    target = np.zeros((23, 1))
    target[22] = np.nan
    data = dataset_of(tasks(3), np.zeros((20, 2)), row, number, target)
    return BatchSource(data.splits["train"], 3, rates=Rates(sampler=sampler))


@pytest.mark.parametrize("sampler", ["natural", "proportional", "temperature", "uniform"])
def test_an_epoch_has_as_many_batches_whatever_the_sampler(sampler: str) -> None:
    batches = list(source(sampler).epoch(5, np.random.default_rng(0)))
    assert len(batches) == source(sampler).number(5) == 4
    # A question without an answer is not drawn where questions are drawn.
    assert sum(map(len, batches)) == (23 if sampler == "natural" else 22)
    assert sampler == "natural" or 22 not in np.concatenate(batches)


@pytest.mark.parametrize("sampler", ["natural", "temperature", "uniform"])
def test_the_order_of_an_epoch_is_the_generators(sampler: str) -> None:
    def order(seed: int) -> list[int]:
        return np.concatenate(list(source(sampler).epoch(5, np.random.default_rng(seed)))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_question_drawn_twice_into_a_batch_encodes_its_input_once() -> None:
    everything = source("uniform")
    questions = np.array([20, 3, 20, 21])  # Inputs 3, 3, 3, 7.
    batch = everything.batch(questions)
    assert len(batch.inputs) == 2
    assert batch.question.tolist() == [20, 3, 20, 21]
    assert batch.row.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("bucket", [1, 4, 100])
def test_every_input_is_drawn_once_into_as_many_batches(bucket: int) -> None:
    lengths = np.arange(103) % 17
    batches = draw_inputs(lengths, 10, bucket, np.random.default_rng(0))
    assert len(batches) == 11
    assert sorted(map(len, batches)) == [3, *[10] * 10]
    assert sorted(np.concatenate(batches).tolist()) == list(range(103))
    again = draw_inputs(lengths, 10, bucket, np.random.default_rng(0))
    assert np.concatenate(again).tolist() == np.concatenate(batches).tolist()


def test_a_bucket_divides_inputs_by_length_and_leaves_batches_in_any_order() -> None:
    lengths = np.random.default_rng(1).permutation(200)

    def spread(bucket: int) -> list[int]:
        batches = draw_inputs(lengths, 10, bucket, np.random.default_rng(0))
        return [int(np.ptp(lengths[batch])) for batch in batches]

    assert np.mean(spread(20)) < np.mean(spread(5)) / 2 < np.mean(spread(1)) / 4
    shortest = [int(lengths[batch].min()) for batch in draw_inputs(lengths, 10, 20, np.random.default_rng(0))]
    assert shortest != sorted(shortest)

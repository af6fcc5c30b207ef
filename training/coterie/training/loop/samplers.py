"""Which questions an epoch asks, in which order: as they are, or task by task at chosen rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coterie.training.config import Sampler

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often each task is asked in an epoch.

    Every way asks as many questions in as many batches as ``natural`` does, so that epochs, schedules and
    clusterings keep their meaning.

    Attributes:
        sampler: ``natural`` takes every input once, with all its questions. The others draw a task for every
            question, then the next of that task's questions in an order of its own: ``proportional`` to
            their number n_t, ``temperature`` by n_t^(1/T), ``uniform`` all alike.
        temperature: T; 1 is proportional, a large one uniform.
        bucket: Batches that ``natural`` draws together, and divides by their inputs' lengths.
    """

    sampler: Sampler = "natural"
    temperature: float = 2.0
    bucket: int = 1

    def shares(self, counts: Ints) -> npt.NDArray[np.float64]:
        """Return each task's share of the questions asked, from its number of questions ``[N]``."""
        power = {"uniform": 0.0, "temperature": 1.0 / self.temperature}.get(self.sampler, 1.0)
        rate = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** power, 0.0)
        return np.asarray(rate / rate.sum())


def draw_questions(
    of_task: Sequence[Ints], rates: Rates, number: int, generator: np.random.Generator
) -> Ints:
    """Draw the questions of an epoch.

    A task's questions come in a random order, none of them again before all were asked once.

    Args:
        of_task: For each task, its questions.
        rates: How often each task is asked.
        number: How many questions to draw.
        generator: Where the draws come from.

    Returns:
        ``[number]``, the questions.
    """
    shares = rates.shares(np.array([len(questions) for questions in of_task], dtype=np.int64))
    task = generator.choice(len(of_task), size=number, p=shares)
    drawn = np.empty(number, dtype=np.int64)
    for index in np.unique(task):
        places, questions = np.flatnonzero(task == index), of_task[index]
        rounds = [generator.permutation(questions) for _ in range(-(-len(places) // len(questions)))]
        drawn[places] = np.concatenate(rounds)[: len(places)]
    return drawn


def draw_inputs(lengths: Ints, size: int, bucket: int, generator: np.random.Generator) -> list[Ints]:
    """Draw the inputs of each batch of an epoch, each input once.

    Args:
        lengths: ``[n]``, the inputs' lengths.
        size: Inputs of a batch.
        bucket: So many batches are drawn together, and divided by length: what a batch fills up is little.
            The batches then come in any order.
        generator: Where the draws come from.

    Returns:
        For each batch, which of the inputs.
    """
    order: Ints = generator.permutation(len(lengths))
    starts = np.arange(0, len(order), size)
    if bucket > 1:
        pools = [order[start : start + bucket * size] for start in starts[::bucket]]
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
        starts = generator.permutation(starts)
    return [order[start : start + size] for start in starts]

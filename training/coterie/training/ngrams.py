"""What the weights of an n-gram bag begin at: how much each n-gram tells of the labels.

The log-count ratios of Wang and Manning (2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic
Classification"), times the inverse document frequency. A frequent n-gram that stands in texts of all labels
alike begins with a small weight, and one that nobody can learn from, since it is in one text only, has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coterie.runtime.errors import ConfigError
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import NgramBag, NgramBagConfig
from coterie.training.config import ModelConfig
from coterie.training.data import Dataset, Inputs, Split
from coterie.training.model import MultiTaskModel
from coterie.training.stages import BankStage

_LEAST = 0.3
"""Beside the log-count ratio: what an n-gram of which no label is fonder than another weighs."""
_MOST = 2.0
"""Where a ratio is cut: those of rare n-grams are large by chance."""
_TEXTS = 2
"""N-grams of fewer texts are left out."""
_CHUNK = 256

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def give_ngram_weights(model: MultiTaskModel, config: ModelConfig, dataset: Dataset) -> None:
    """Put the configured first weights into a model's n-gram bags.

    Texts without an answer count for how many texts an n-gram is in. Where each task has a bag of its own
    (``specific``), a bag's weights are of that task's labels alone.

    Raises:
        ConfigError: If a bag is one of several inputs'.
    """
    for name, blocks in config.inputs.items():
        if any(isinstance(block, NgramBagConfig) and block.start != "ones" for block in blocks):
            raise ConfigError(f"model.inputs.{name}.start: is for models of one input: leave it out")
    stages = model.each_stage()
    first = len(stages) - len(config.stages) - 1
    for stage, configured in zip(stages[first:-1], config.stages, strict=True):
        if not isinstance(stage, BankStage):
            continue
        for name, block in configured.blocks().items():
            bag = stage.bank.template.get_submodule(name)
            if isinstance(block, NgramBagConfig) and isinstance(bag, NgramBag) and block.start != "ones":
                owner, weight = _begun(bag, dataset, specific=configured.kind == "specific")
                stage.bank.fill("owner", torch.from_numpy(owner), module=name)
                stage.bank.fill("weight", torch.from_numpy(weight), module=name)


def _begun(bag: NgramBag, dataset: Dataset, *, specific: bool) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Return whose each row of a bag is ``[E]``, and the weights ``[B, E]``: of one bag, or one a task."""
    keys, rarity, count = _counted(bag, dataset)
    split = dataset.splits["train"]
    weights = np.stack(
        [
            rarity * _telling(bag, keys, split, _sides(split, dataset.tasks, task))
            for task in (range(len(dataset.tasks)) if specific else [None])
        ]
    )
    # Of the n-grams that are hashed to one row, the one that is most of the texts' norms.
    rows = bag.rows(torch.from_numpy(keys)).numpy()
    order = np.argsort(count * (weights**2).max(axis=0), kind="stable")
    owner = np.zeros(len(bag.owner), dtype=np.int64)
    owner[rows[order]] = keys[order]  # of several, the last one stays
    mine = owner[rows] == keys
    filled = np.zeros((len(weights), len(owner)), dtype=np.float32)
    filled[:, rows[mine]] = weights[:, mine] / np.sqrt((weights[:, mine] ** 2).mean())
    return owner, filled


def _counted(bag: NgramBag, dataset: Dataset) -> tuple[Ints, Doubles, Ints]:
    """Return the n-grams of two and more texts, ``[G]``: keys in order, inverse frequencies, counts."""
    splits = [dataset.splits["train"], *([] if dataset.unanswered is None else [dataset.unanswered])]
    found: Ints = np.zeros(0, dtype=np.int64)
    count: Ints = np.zeros(0, dtype=np.int64)
    for split in splits:
        parts = [keys for _, keys in _present(bag, split.inputs, np.arange(len(split.inputs)))]
        keys, times = np.unique(np.concatenate([found, *parts]), return_counts=True)
        times[np.searchsorted(keys, found)] += count - 1
        found, count = keys, times
    found, count = found[count >= _TEXTS], count[count >= _TEXTS]
    texts = sum(len(split.inputs) for split in splits)
    return found, np.log(texts / count), count


def _telling(bag: NgramBag, keys: Ints, split: Split, sides: Sequence[tuple[Ints, Ints]]) -> Doubles:
    """Return how much more often each n-gram is in texts of one label than in those of others, ``[G]``."""
    largest = np.zeros(len(keys))
    for yes, no in sides:
        count = np.zeros((2, len(keys)))
        for place, found in _present(bag, split.inputs, split.row[np.concatenate([yes, no])]):
            number = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
            known = keys[number] == found
            for side in (0, 1):
                mine = number[known & ((place >= len(yes)) == bool(side))]
                count[side] += np.bincount(mine, minlength=len(keys))
        share = np.log(count + 1) - np.log((count + 1).sum(axis=1, keepdims=True))
        largest = np.maximum(largest, np.abs(share[0] - share[1]))
    telling: Doubles = _LEAST + np.minimum(largest, _MOST)
    return telling


def _sides(split: Split, tasks: tuple[TaskSpec, ...], only: int | None) -> list[tuple[Ints, Ints]]:
    """Return for every label the questions whose answer it is, and those whose answer is another one.

    Labels of the same names are the same for all tasks; numbers have none.
    """
    found: dict[tuple[str, ...], list[tuple[Ints, Ints]]] = {}
    for number, task in enumerate(tasks):
        if only not in {None, number} or task.kind not in {"classification", "multilabel"}:
            continue
        asked = split.of_task(number)
        name: tuple[str, ...]
        for place, label in enumerate(task.labels):
            if task.kind == "multilabel":
                answer, name = split.target[asked, place], (label,)
                is_it = answer > 0.5
            elif len(task.labels) > 2 or place == 1:  # the first of two is the other side of the second
                answer, name = split.target[asked, 0], (*task.labels, label)
                is_it = answer == place
            else:
                continue
            known = ~np.isnan(answer)
            found.setdefault(name, []).append((asked[known & is_it], asked[known & ~is_it]))
    return [
        (np.concatenate([yes for yes, _ in pairs]), np.concatenate([no for _, no in pairs]))
        for pairs in found.values()
    ]


def _present(bag: NgramBag, inputs: Inputs, rows: npt.NDArray[Any]) -> Iterator[tuple[Ints, Ints]]:
    """Yield which n-grams are in which of some texts, each once a text: places among the rows, and keys."""
    for start in range(0, len(rows), _CHUNK):
        batch = inputs.batch(rows[start : start + _CHUNK])
        if isinstance(batch, tuple):
            raise TypeError("an n-gram bag reads one input")
        keys = np.sort(bag.keys(torch.from_numpy(batch)).numpy(), axis=1)
        new = np.concatenate([keys[:, :1] > 0, keys[:, 1:] != keys[:, :-1]], axis=1)
        place, column = np.nonzero(new & (keys > 0))
        yield place + start, keys[place, column]

"""scikit-learn's handwritten digits as twenty tasks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.data._config import DigitsConfig
from coterie.training.data._dataset import Array, Dataset, DenseInputs, Ints, Split, checksum

_SHARES = {"dev": 0.2, "test": 0.25}
_NO_YES = ("no", "yes")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The first ones share much with each other and with the digits' own detectors; the last two share little:
# the length of a word has nothing to do with a shape, and ink is a matter of the pen, not of the digit.
_QUESTIONS: tuple[tuple[str, tuple[str, ...], Callable[[int], int]], ...] = (
    ("odd", _NO_YES, lambda digit: digit % 2),
    ("over_four", _NO_YES, lambda digit: int(digit > 4)),
    ("prime", _NO_YES, lambda digit: int(digit in (2, 3, 5, 7))),
    ("square", _NO_YES, lambda digit: int(digit in (0, 1, 4, 9))),
    ("multiple_of_three", _NO_YES, lambda digit: int(digit % 3 == 0)),
    ("closed_loop", _NO_YES, lambda digit: int(digit in (0, 6, 8, 9))),
    ("outline", ("straight", "curved", "both"), lambda digit: (1, 0, 2, 1, 0, 2, 1, 0, 1, 1)[digit]),
    ("remainder_by_four", ("0", "1", "2", "3"), lambda digit: digit % 4),
    ("letters_in_name", ("three", "four", "five"), lambda digit: len(_WORDS[digit]) - 3),
)


def load_digits_data(config: DigitsConfig) -> Dataset:
    """Return the digits: 1,797 images, each stored once, and asked of the tasks that know it."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images: Array = raw.images
    digits: Ints = raw.target.astype(np.int64)
    tasks, answers = _tasks(images, digits)
    generator = np.random.default_rng(config.seed)
    members = _members(digits, config.train_share, generator)
    pool = (
        images[..., None].astype(np.uint8)
        if config.images
        else images.reshape(len(images), -1).astype(np.float32)
    )
    splits = {}
    for name, rows in members.items():
        share = config.labelled if name == "train" else 1.0
        splits[name] = _split(pool[rows], answers[rows], share, generator)
    dtype = "uint8" if config.images else "float32"
    spec = TensorSpec(
        name="image" if config.images else "inputs",
        dtype=dtype,
        shape=(None, *pool.shape[1:]),
    )
    return Dataset(inputs=(spec,), tasks=tasks, splits=splits, sha256=checksum((spec,), tasks, splits, None))


def _tasks(images: Array, digits: Ints) -> tuple[tuple[TaskSpec, ...], Ints]:
    """Return the twenty tasks and every image's answers, ``[n, 20]``."""
    tasks = [TaskSpec(name=f"is_{word}", kind="classification", labels=_NO_YES) for word in _WORDS]
    answers = [(digits == number).astype(np.int64) for number in range(10)]
    for name, labels, answer in _QUESTIONS:
        tasks.append(TaskSpec(name=name, kind="classification", labels=labels))
        answers.append(np.array([answer(digit) for digit in range(10)])[digits])
    ink = images.sum(axis=(1, 2))
    tasks.append(TaskSpec(name="ink", kind="classification", labels=("little", "some", "much")))
    answers.append(np.searchsorted(np.quantile(ink, (1 / 3, 2 / 3)), ink))
    return tuple(tasks), np.stack(answers, axis=1)


def _members(digits: Ints, train_share: float, generator: np.random.Generator) -> dict[str, Ints]:
    """Divide the images, digit by digit."""
    found: dict[str, list[Ints]] = {"train": [], "dev": [], "test": []}
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(digits == digit))
        test = round(_SHARES["test"] * len(rows))
        dev = test + round(_SHARES["dev"] * len(rows))
        kept = max(1, round(train_share * (len(rows) - dev)))
        for name, part in (("test", rows[:test]), ("dev", rows[test:dev]), ("train", rows[dev : dev + kept])):
            found[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def _split(inputs: Array, answers: Ints, share: float, generator: np.random.Generator) -> Split:
    """Ask every task about a share of the images, the same share of each of its classes."""
    known = np.ones(answers.shape, dtype=bool)
    if share < 1:
        known = np.stack([_subset(column, share, generator) for column in answers.T], axis=1)
    row, task = np.nonzero(known)
    return Split(
        inputs=DenseInputs(inputs),
        row=row.astype(np.int64),
        task=task.astype(np.int64),
        target=answers[row, task].astype(np.float32)[:, None],
    )


def _subset(classes: Ints, share: float, generator: np.random.Generator) -> Array:
    chosen = np.zeros(len(classes), dtype=bool)
    for number in np.unique(classes):
        rows = np.flatnonzero(classes == number)
        chosen[generator.choice(rows, size=max(1, round(share * len(rows))), replace=False)] = True
    return chosen

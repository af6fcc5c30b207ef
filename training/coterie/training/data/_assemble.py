"""The last steps that all files have in common: divide into splits, number the inputs, make tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.text import TextEncoder
from coterie.training.data._config import TokenOptions, _SplitShares
from coterie.training.data._dataset import (
    SPLITS,
    Array,
    Dataset,
    DenseInputs,
    Floats,
    Inputs,
    Ints,
    Split,
    Text,
    TokenInputs,
    checksum,
)
from coterie.training.data._problems import Problems
from coterie.training.data._questions import Questions
from coterie.training.data._tokens import make_tokenizer, train_words

Pool = Array | Sequence[str] | Sequence[tuple[str, ...]]
"""All distinct inputs: features, images, texts or lists of words."""


def merge(items: Pool) -> tuple[Pool, Ints, Ints]:
    """Return the distinct items, the first occurrence of each, and each item's place among them."""
    places: dict[object, int] = {}
    first: list[int] = []
    inverse = np.empty(len(items), dtype=np.int64)
    for index, item in enumerate(items):
        key = item.tobytes() if isinstance(item, np.ndarray) else item
        place = places.setdefault(key, len(first))
        if place == len(first):
            first.append(index)
        inverse[index] = place
    distinct = items[first] if isinstance(items, np.ndarray) else cast("Pool", [items[row] for row in first])
    return distinct, np.array(first, dtype=np.int64), inverse


def content_order(pool: Pool, members: Ints, seed: int) -> Ints:
    """Return a number for each member that depends on its content and the seed alone, ``[len(members)]``."""
    key = seed.to_bytes(16, "little", signed=True)
    numbers = np.empty(len(members), dtype=np.uint64)
    for place, member in enumerate(members):
        item = pool[member]
        raw = item.tobytes() if isinstance(item, np.ndarray) else _joined(item).encode()
        numbers[place] = int.from_bytes(hashlib.blake2b(raw, digest_size=8, key=key).digest(), "little")
    return np.argsort(np.argsort(numbers, kind="stable"), kind="stable")


def _joined(text: str | tuple[str, ...]) -> str:
    return text if isinstance(text, str) else "\0".join(text)


def carve(order: Ints, inputs: Ints, task: Ints, tasks: int, share: float) -> Array:
    """Choose inputs so that each task gives up about ``share`` of its own; no input is divided.

    Args:
        order: Each input's place in the drawing, ``[U]``.
        inputs: The input of each question, ``[Q]``.
        task: The task of each question, ``[Q]``.
        tasks: Number of tasks.
        share: Share of each task's inputs.

    Returns:
        Which inputs are chosen, ``[U]`` bool.
    """
    chosen = np.zeros(len(order), dtype=bool)
    if share <= 0:
        return chosen
    by_task = np.argsort(task, kind="stable")
    bounds = np.searchsorted(task[by_task], np.arange(tasks + 1))
    own = [np.unique(inputs[by_task[bounds[t] : bounds[t + 1]]]) for t in range(tasks)]
    # Small tasks first: what they take also counts for the large ones that share their inputs.
    for mine in sorted(own, key=len):
        wanted = min(max(1, round(share * len(mine))), len(mine) - 1) - int(chosen[mine].sum())
        if wanted > 0:
            free = mine[~chosen[mine]]
            chosen[free[np.argsort(order[free])[:wanted]]] = True
    return chosen


def divide(pool: Pool, questions: Questions, config: _SplitShares, *, code: Ints, inputs: Ints) -> Ints:
    """Return each question's split: as the data says, or cut from train; -1 is left out."""
    code = code.copy()

    def cut(share: float, target: int) -> None:
        asked = np.flatnonzero(code == 0)
        members, places = np.unique(inputs[asked], return_inverse=True)
        order = content_order(pool, members, config.seed)
        chosen = carve(order, places, questions.task[asked], len(questions.tasks), share)
        code[asked[chosen[places]]] = target

    if config.test_share > 0 and not (code == 2).any():
        cut(config.test_share, 2)
    if not (code == 1).any():
        cut(config.dev_share, 1)
    if config.train_share < 1:
        cut(1 - config.train_share, -1)
    return code


def assemble(
    pool: Pool,
    questions: Questions,
    config: _SplitShares,
    *,
    inputs: Ints,
    code: Ints,
    weight: Floats | None,
    tokens: TokenOptions | None,
    where: Callable[[int], str],
    problems: Problems,
    unlabeled: Sequence[str | tuple[str, ...]] = (),
) -> Dataset:
    """Put a data set together.

    Args:
        pool: All distinct inputs.
        questions: What is asked.
        config: How to divide what the data does not divide.
        inputs: The input of each question, ``[Q]``.
        code: Its split, ``[Q]``.
        weight: Its weight, ``[Q]``.
        tokens: How texts become tokens.
        where: Where an input stands in its file, for a message.
        problems: Where to note what is wrong.
        unlabeled: Texts that nothing is asked about.

    Raises:
        DataError: If a text has no token, or a split no question; and for whatever was noted before.
    """
    code = divide(pool, questions, config, code=code, inputs=inputs)
    for number, task in enumerate(questions.tasks):
        for split in (0, 1):
            if not ((questions.task == number) & (code == split)).any():
                problems.add(
                    f"task {task.name!r} has no row in the {SPLITS[split]} split: "
                    "add some, or leave the task out"
                )
    problems.check()
    members = {
        name: np.unique(inputs[code == number])
        for number, name in enumerate(SPLITS)
        if (code == number).any()
    }
    text, spec, parts = _inputs(pool, members, tokens, where, problems)
    problems.check()
    if questions.tasks[0].kind == "tagging":
        # Every word weighs the same, rather than every text: else the shortest texts would be learned best.
        words = (~np.isnan(questions.target)).sum(axis=1).astype(np.float32)
        weight = words / words.mean() * (np.float32(1) if weight is None else weight)
    splits = {}
    for number, name in enumerate(SPLITS):
        if name not in members:
            continue
        asked = code == number
        splits[name] = Split(
            inputs=parts[name],
            row=np.searchsorted(members[name], inputs[asked]),
            task=questions.task[asked],
            target=questions.target[asked],
            weight=None if weight is None else weight[asked],
        )
    return Dataset(
        input=spec,
        tasks=questions.tasks,
        splits=splits,
        text=text,
        sha256=checksum(spec, questions.tasks, splits, text, unlabeled),
        unlabeled=unlabeled,
    )


def _inputs(
    pool: Pool,
    members: dict[str, Ints],
    tokens: TokenOptions | None,
    where: Callable[[int], str],
    problems: Problems,
) -> tuple[Text | None, TensorSpec, dict[str, Inputs]]:
    if isinstance(pool, np.ndarray):
        name = "image" if pool.ndim == 4 else "inputs"
        dtype = "uint8" if pool.ndim == 4 else "float32"
        spec = TensorSpec(name=name, dtype=dtype, shape=(None, *pool.shape[1:]))
        return None, spec, {name: DenseInputs(pool[rows]) for name, rows in members.items()}
    learned = [pool[row] for row in members["train"]]
    make = make_tokenizer if isinstance(pool[0], str) else train_words
    text = make(learned, tokens or TokenOptions())
    encoder = TextEncoder(text.tokenizer, text.spec)
    parts: dict[str, Inputs] = {}
    for name, rows in members.items():
        encoded = encoder.tokens([pool[row] for row in rows])
        bare = [int(row) for row, ids in zip(rows, encoded, strict=True) if not ids]
        problems.add_each(bare, lambda row: f"{where(row)}: the text has no token: correct or remove the row")
        parts[name] = TokenInputs.of(encoded, text.spec.pad_id)
    columns = () if encoder.words is None else (len(encoder.words.limits),)
    return text, TensorSpec(name="tokens", dtype="int64", shape=(None, None, *columns)), parts

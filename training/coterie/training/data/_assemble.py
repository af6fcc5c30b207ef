"""The last steps that all files have in common: divide into splits, number the inputs, make tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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
    JoinedInputs,
    Split,
    Text,
    TokenInputs,
    checksum,
)
from coterie.training.data._problems import Problems
from coterie.training.data._questions import Questions
from coterie.training.data._tokens import make_tokenizer, train_words

Pool = Array | Sequence[str] | Sequence[tuple[str, ...]]
"""What a model takes as one input: features, images, texts or lists of words, n of them."""
Pools = Mapping[str, Pool]
"""Every input of a model by its name, n of each."""


_OTHERS = "unanswered"


def merge(pools: Pools) -> tuple[Pools, Ints, Ints]:
    """Return the distinct rows, the first occurrence of each, and each row's place among them."""
    count = len(next(iter(pools.values())))
    places: dict[object, int] = {}
    first: list[int] = []
    inverse = np.empty(count, dtype=np.int64)
    for index in range(count):
        key = tuple(_key(pool[index]) for pool in pools.values())
        place = places.setdefault(key, len(first))
        if place == len(first):
            first.append(index)
        inverse[index] = place
    distinct = {name: _some(pool, first) for name, pool in pools.items()}
    return distinct, np.array(first, dtype=np.int64), inverse


def content_order(pools: Pools, members: Ints, seed: int) -> Ints:
    """Return a number for each member that depends on its content and the seed alone, ``[len(members)]``."""
    key = seed.to_bytes(16, "little", signed=True)
    numbers = np.empty(len(members), dtype=np.uint64)
    for place, member in enumerate(members):
        raw = b"\0".join(_content(pool[member]) for pool in pools.values())
        numbers[place] = int.from_bytes(hashlib.blake2b(raw, digest_size=8, key=key).digest(), "little")
    return np.argsort(np.argsort(numbers, kind="stable"), kind="stable")


def _key(item: Any) -> object:
    return item.tobytes() if isinstance(item, np.ndarray) else item


def _content(item: Any) -> bytes:
    if isinstance(item, np.ndarray):
        return item.tobytes()
    return (item if isinstance(item, str) else "\0".join(item)).encode()


def _some(pool: Pool, rows: Sequence[int] | Ints) -> Pool:
    return pool[rows] if isinstance(pool, np.ndarray) else cast("Pool", [pool[row] for row in rows])


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


def divide(pools: Pools, questions: Questions, config: _SplitShares, *, code: Ints, inputs: Ints) -> Ints:
    """Return each question's split: as the data says, or cut from train; -1 is left out."""
    code = code.copy()

    def cut(share: float, target: int) -> None:
        asked = np.flatnonzero(code == 0)
        members, places = np.unique(inputs[asked], return_inverse=True)
        order = content_order(pools, members, config.seed)
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
    pools: Pools,
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
    others: tuple[Ints, Ints] | None = None,
) -> Dataset:
    """Put a data set together.

    Args:
        pools: All distinct inputs, by the names of what a model takes.
        questions: What is asked.
        config: How to divide what the data does not divide.
        inputs: The input of each question, ``[Q]``.
        code: Its split, ``[Q]``.
        weight: Its weight, ``[Q]``.
        tokens: How texts become tokens.
        where: Where an input stands in its file, for a message.
        problems: Where to note what is wrong.
        unlabeled: Texts without an answer.
        others: Inputs and tasks of questions without an answer, both ``[U]``.

    Raises:
        DataError: If a text has no token, or a split no question; and for whatever was noted before.
    """
    code = divide(pools, questions, config, code=code, inputs=inputs)
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
    if others is not None and len(others[0]):
        members[_OTHERS] = np.unique(others[0])
    made = [
        _one_input(name, pool, members, tokens or TokenOptions(), where=where, problems=problems)
        for name, pool in pools.items()
    ]
    problems.check()
    specs = tuple(one.spec for one in made)
    text = next((one.text for one in made if one.text is not None), None)
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
            inputs=_side_by_side([one.splits[name] for one in made]),
            row=np.searchsorted(members[name], inputs[asked]),
            task=questions.task[asked],
            target=questions.target[asked],
            weight=None if weight is None else weight[asked],
        )
    unanswered = None
    if others is not None and _OTHERS in members:
        unanswered = Split(
            inputs=_side_by_side([one.splits[_OTHERS] for one in made]),
            row=np.searchsorted(members[_OTHERS], others[0]),
            task=others[1],
            target=np.full((len(others[0]), questions.target.shape[1]), np.nan, dtype=np.float32),
        )
    return Dataset(
        inputs=specs,
        tasks=questions.tasks,
        splits=splits,
        text=text,
        sha256=checksum(specs, questions.tasks, splits, text, unlabeled=unlabeled, unanswered=unanswered),
        unlabeled=unlabeled,
        unanswered=unanswered,
    )


@dataclass(frozen=True, eq=False)
class _OneInput:
    """One input of the model: its tensor, its rows in each split and, of texts, how they became tokens."""

    spec: TensorSpec
    splits: dict[str, Inputs]
    text: Text | None = None


def _side_by_side(members: Sequence[Inputs]) -> Inputs:
    return members[0] if len(members) == 1 else JoinedInputs(tuple(members))


def _one_input(
    name: str,
    pool: Pool,
    members: dict[str, Ints],
    tokens: TokenOptions,
    *,
    where: Callable[[int], str],
    problems: Problems,
) -> _OneInput:
    if isinstance(pool, np.ndarray):
        dtype = "uint8" if pool.ndim == 4 else "float32"
        spec = TensorSpec(name=name, dtype=dtype, shape=(None, *pool.shape[1:]))
        return _OneInput(spec, {split: DenseInputs(pool[rows]) for split, rows in members.items()})
    learned = [pool[row] for split in ("train", _OTHERS) for row in members.get(split, ())]
    make = make_tokenizer if isinstance(pool[0], str) else train_words
    text = make(learned, tokens)
    encoder = TextEncoder(text.tokenizer, text.spec)
    splits: dict[str, Inputs] = {}
    for split, rows in members.items():
        encoded = encoder.tokens([pool[row] for row in rows])
        bare = [int(row) for row, ids in zip(rows, encoded, strict=True) if not ids]
        problems.add_each(bare, lambda row: f"{where(row)}: the text has no token: correct or remove the row")
        splits[split] = TokenInputs.of(encoded, text.spec.pad_id)
    columns = () if encoder.words is None else (len(encoder.words.limits),)
    return _OneInput(TensorSpec(name=name, dtype="int64", shape=(None, None, *columns)), splits, text)

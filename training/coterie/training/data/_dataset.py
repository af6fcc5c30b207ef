"""A data set in memory: inputs stored once, and questions about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coterie.runtime.manifest import TensorSpec, TextSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.several import Arrays, each

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SPLITS = ("train", "dev", "test", "ood")
"""The splits, in the order in which they are used; the last is a second test set, of another domain."""


class Inputs(Protocol):
    """The distinct inputs of a split, whatever they are."""

    def __len__(self) -> int:
        """Return the number of inputs, n."""

    def batch(self, indices: Ints) -> Arrays:
        """Return some inputs as one array, ``[R] -> [R, ...]``, or as one of each of a model's inputs."""

    def lengths(self) -> Ints:
        """Return how much of each input a batch may have to fill up, ``[n]``: 0 where all are alike."""

    def parts(self) -> Sequence[Array]:
        """Return the arrays that hold everything, for a checksum."""


@dataclass(frozen=True, eq=False)
class DenseInputs:
    """Features ``[n, D]`` float32, or images ``[n, H, W, C]`` uint8."""

    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Ints) -> Array:
        """Return some rows, ``[R] -> [R, ...]``."""
        return self.values[indices]

    def lengths(self) -> Ints:
        """Return zeros, ``[n]``."""
        return np.zeros(len(self), dtype=np.int64)

    def parts(self) -> Sequence[Array]:
        """Return the one array."""
        return (self.values,)


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Texts as token ids, one after the other.

    Attributes:
        tokens: The token ids of all texts, flat, int32; ``[T, 1 + W]`` for words with their characters.
        offsets: Where each text starts, and the end of the last, ``[n + 1]``.
        pad_id: What fills up the shorter texts of a batch.
    """

    tokens: npt.NDArray[np.int32]
    offsets: Ints
    pad_id: int = 0

    @classmethod
    def of(cls, texts: Sequence[Sequence[Any]], pad_id: int = 0) -> TokenInputs:
        """Store the token ids of each text, or each word's ids."""
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        parts = [np.array(text, dtype=np.int32) for text in texts if len(text)]
        flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return cls(flat, offsets, pad_id)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, indices: Ints) -> Array:
        """Return some texts padded on the right to the longest, ``[R] -> [R, L(, 1 + W)]`` int64, L >= 1."""
        start = self.offsets[indices]
        length = self.offsets[np.asarray(indices) + 1] - start
        steps = np.arange(max(1, int(length.max(initial=1))))
        present = steps < length[:, None]
        result = np.full((*present.shape, *self.tokens.shape[1:]), self.pad_id, dtype=np.int64)
        result[present] = self.tokens[(start[:, None] + steps)[present]]
        return result

    def lengths(self) -> Ints:
        """Return the number of tokens or words of each text, ``[n]``."""
        return np.diff(self.offsets)

    def parts(self) -> Sequence[Array]:
        """Return tokens and offsets."""
        return (self.tokens, self.offsets)


@dataclass(frozen=True, eq=False)
class JoinedInputs:
    """Inputs of several tensors.

    Attributes:
        members: Those of each tensor, n of each, in the order of ``Dataset.inputs``.
    """

    members: tuple[Inputs, ...]

    def __len__(self) -> int:
        return len(self.members[0])

    def batch(self, indices: Ints) -> Arrays:
        """Return some rows of each, ``[R] -> [R, ...]``."""
        return tuple(array for member in self.members for array in each(member.batch(indices)))

    def lengths(self) -> Ints:
        """Return the sum over the members, ``[n]``."""
        return np.asarray(np.sum([member.lengths() for member in self.members], axis=0))

    def parts(self) -> Sequence[Array]:
        """Return the arrays of all of them."""
        return [array for member in self.members for array in member.parts()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The questions of one split, Q of them, about n distinct inputs.

    Attributes:
        inputs: The inputs, each stored once.
        row: The input each question is about, ``[Q]``.
        task: The task each question is of, ``[Q]``.
        target: The answers, ``[Q, T]``: the class in column 0 (classification), 0 or 1 for each label
            (multilabel), numbers (regression), the class of each token (tagging). NaN is a missing label, or
            a column past the task's own width or the text's end.
        weight: Weight of each question, ``[Q]``; None where all weigh the same. Of a tagging each word does.
    """

    inputs: Inputs
    row: Ints
    task: Ints
    target: Floats
    weight: Floats | None = None

    def __len__(self) -> int:
        return len(self.row)

    def of_task(self, task: int) -> Ints:
        """Return which questions are of that task."""
        return np.flatnonzero(self.task == task)


@dataclass(frozen=True, kw_only=True)
class Text:
    """How the texts became tokens.

    Attributes:
        tokenizer: The tokenizer's JSON, as the ``tokenizers`` library writes it.
        spec: The file it is to be saved as, the length limit and the padding id.
        vocabulary: Number of token ids.
    """

    tokenizer: str
    spec: TextSpec
    vocabulary: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What a planted data set was made of.

    Attributes:
        assignments: For each cluster layer, from the first to the last, each task's cluster, ``[N]``.
        experts: Which experts each task uses, 0 or 1, ``[N, M]``; M is 0 without a gated part.
        weights: With which weights it mixes them, ``[N, M]``.
    """

    assignments: tuple[Ints, ...]
    experts: Ints
    weights: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Everything a training needs to know of its data.

    Attributes:
        inputs: The tensors that a model's first stage takes; the first dimension of each is the batch.
        tasks: What each task answers; ``Split.task`` counts in this order.
        splits: ``train`` and ``dev`` always, ``test`` and ``ood`` where there is one.
        text: How the texts became tokens, when the inputs are texts.
        sha256: Checksum of the content: the same data has the same, whatever file it came from.
        unlabeled: Texts without an answer, to learn word vectors from.
        unanswered: Questions without an answer, about inputs of their own, for a teacher; none where there
            is none of them.
        truth: What a planted data set was made of.
    """

    inputs: tuple[TensorSpec, ...]
    tasks: tuple[TaskSpec, ...]
    splits: Mapping[str, Split]
    text: Text | None = None
    sha256: str
    unlabeled: Sequence[str | tuple[str, ...]] = ()
    unanswered: Split | None = None
    truth: Truth | None = None


def join_splits(splits: Sequence[Split]) -> Split:
    """Return one split with the questions of several, in their order; a text keeps its tokens."""
    starts = np.cumsum([0, *(len(split.inputs) for split in splits)])
    weights = [np.ones(len(split), np.float32) if split.weight is None else split.weight for split in splits]
    return Split(
        inputs=_join_inputs([split.inputs for split in splits]),
        row=np.concatenate([split.row + start for split, start in zip(splits, starts, strict=False)]),
        task=np.concatenate([split.task for split in splits]),
        target=np.concatenate([split.target for split in splits]),
        weight=None if all(split.weight is None for split in splits) else np.concatenate(weights),
    )


def _join_inputs(parts: Sequence[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, JoinedInputs):
        members = zip(*(part.members for part in parts if isinstance(part, JoinedInputs)), strict=True)
        return JoinedInputs(tuple(map(_join_inputs, members)))
    if isinstance(first, TokenInputs):
        texts = [part for part in parts if isinstance(part, TokenInputs)]
        starts = np.cumsum([0, *(len(part.tokens) for part in texts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(texts, starts, strict=False)]
        tokens = np.concatenate([part.tokens for part in texts])
        return TokenInputs(tokens, np.concatenate([*offsets, starts[-1:]]), first.pad_id)
    return DenseInputs(np.concatenate([part.values for part in parts if isinstance(part, DenseInputs)]))


def checksum(
    inputs: Sequence[TensorSpec],
    tasks: Sequence[TaskSpec],
    splits: Mapping[str, Split],
    text: Text | None,
    *,
    unlabeled: Sequence[str | tuple[str, ...]] = (),
    unanswered: Split | None = None,
) -> str:
    """Return the SHA-256 of a data set's content."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    specs = [spec.model_dump(mode="json") for spec in inputs]
    add([specs[0] if len(specs) == 1 else specs, [task.model_dump(mode="json") for task in tasks]])
    add([text.tokenizer, text.spec.model_dump(mode="json")] if text else None)
    asked = {name: splits[name] for name in SPLITS if name in splits}
    for name, split in (asked if unanswered is None else asked | {"unanswered": unanswered}).items():
        for array in (*split.inputs.parts(), split.row, split.task, split.target, split.weight):
            if array is None:
                add(None)
                continue
            add([name, str(array.dtype), list(array.shape)])
            digest.update(np.ascontiguousarray(array).data)
    if unlabeled:
        add(list(unlabeled))
    return digest.hexdigest()

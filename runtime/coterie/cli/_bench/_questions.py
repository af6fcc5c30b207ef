"""Inputs to ask a bundle about: given ones, or random ones of the right shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from coterie.runtime import Bundle
from coterie.runtime.engine._inputs import as_inputs, takes_text
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import TensorSpec

Inputs = dict[str, npt.NDArray[Any]]
"""Each input tensor of a model by its name, ``[R, ...]``."""

ROWS = 256
"""Distinct inputs that are made; the largest batch."""

_WORDS = 64
_SIDE = 32


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked about.

    Attributes:
        inputs: As the graphs take them.
        texts: Of a bundle that takes texts, these, [R]; they are what goes to a server.
    """

    inputs: Inputs
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return R."""
        return len(next(iter(self.inputs.values())))

    def some(self, rows: int) -> Inputs:
        """Return the first rows, from the start again where there are not so many."""
        return {name: values[np.arange(rows) % len(values)] for name, values in self.inputs.items()}


def random_questions(bundle: Bundle, *, rows: int = ROWS, seed: int = 0) -> Questions:
    """Return inputs of random values, each row another.

    Numbers are normally distributed, texts are 64 words of the vocabulary, or as many as the bundle reads at
    most; any other open dimension is 32.
    """
    generator = np.random.default_rng(seed)
    inputs: Inputs = {}
    texts: tuple[str, ...] | None = None
    for spec in bundle.manifest.inputs:
        if bundle.text is not None and takes_text(bundle, spec):
            texts = _texts(bundle, rows, generator)
            inputs[spec.name] = bundle.text.encode(texts)
        else:
            inputs[spec.name] = _numbers(spec, rows, generator)
    return Questions(inputs, texts)


def given_questions(bundle: Bundle, given: Any) -> Questions:
    """Return what a file held.

    Raises:
        InvalidInputError: If it is not what the bundle takes, or holds no row.
    """
    inputs, count = as_inputs(bundle, given)
    if not count:
        raise InvalidInputError("there is nothing to ask about: give a file with at least one row")
    if bundle.text is None:
        return Questions(inputs)
    (name,) = [spec.name for spec in bundle.manifest.inputs if takes_text(bundle, spec)]
    texts = [row[name] if isinstance(row, dict) else row for row in given]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("a server takes texts: give them as strings, not as token ids or words")
    return Questions(inputs, tuple(texts))


def _numbers(spec: TensorSpec, rows: int, generator: np.random.Generator) -> npt.NDArray[Any]:
    shape = (rows, *(dim or _SIDE for dim in spec.shape[1:]))
    if spec.dtype == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    return generator.integers(256 if spec.dtype == "uint8" else 2, size=shape).astype(spec.dtype)


def _texts(bundle: Bundle, rows: int, generator: np.random.Generator) -> tuple[str, ...]:
    text = bundle.manifest.text
    if text is None:
        raise TypeError("a bundle that takes no text has no vocabulary")
    # In order: a vocabulary is a hash table, which differs from process to process.
    words = sorted(Tokenizer.from_file(str(bundle.path / text.tokenizer)).get_vocab())
    drawn = generator.choice(np.array(words, dtype=object), size=(rows, min(_WORDS, text.max_length)))
    return tuple(" ".join(row) for row in drawn.tolist())

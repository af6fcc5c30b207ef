"""Shapes of the states that flow from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from coterie.runtime.errors import ConfigError

EXAMPLE_LENGTH = 7


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """Shape of one row; ``None`` is a length that differs from batch to batch.

    Attributes:
        dims: Without the batch dimension: ``(D,)``, ``(C, H, W)``, ``(L,)`` for tokens, ``(L, D)``,
            ``(L, 1 + W)`` for words, each with its characters.
        tokens: Whether the entries are token ids (int64, 0 is padding) rather than numbers.
        vocabulary: Number of token ids, for tokens.
        pad_id: The token id of padding.
        characters: Number of character ids, for words.
        words: What each token id stands for, for tokens.
    """

    dims: tuple[int | None, ...]
    tokens: bool = False
    vocabulary: int = 0
    pad_id: int = 0
    characters: int = 0
    words: tuple[str, ...] = field(default=(), repr=False)

    def example(self, rows: int, length: int = EXAMPLE_LENGTH) -> Tensor:
        """Return a batch of zeros, or of ones where the entries are tokens; ``length`` is the open ones."""
        dims = [length if size is None else size for size in self.dims]
        if self.tokens:
            return torch.ones((rows, *dims), dtype=torch.int64)
        return torch.zeros((rows, *dims))

    def vector(self, block: str) -> int:
        """Return D where the states are vectors ``(D,)``.

        Raises:
            ConfigError: If they are something else.
        """
        if self.tokens or len(self.dims) != 1 or self.dims[0] is None:
            raise ConfigError(f"block {block!r} takes vectors (D,), but its input is {self}")
        return self.dims[0]

    def __str__(self) -> str:
        """Return for example ``tokens (length,)``."""
        dims = ", ".join("length" if size is None else str(size) for size in self.dims)
        return f"{'tokens ' if self.tokens else ''}({dims}{',' if len(self.dims) == 1 else ''})"

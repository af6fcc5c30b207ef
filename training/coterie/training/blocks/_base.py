"""What every block has in common, and how a configuration becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._shapes import EXAMPLE_LENGTH, InputShape


class Block(nn.Module, ABC):
    """A network from the states of R inputs to R new states, ``[R, ...] -> [R, ...]``.

    A row's result must depend on that row alone, so that rows of several requests can be mixed; there is no
    batch normalisation.

    Attributes:
        rates: Learning rates of some parameters by name, in multiples of the stage's.
        batched: Whether many such blocks are better run in one go than in turn: where a block is a few small
            matrix products, and its ``forward`` can be mapped by ``torch.func.vmap``.
    """

    rates: Mapping[str, float] = MappingProxyType({})
    batched: ClassVar[bool] = False

    @abstractmethod
    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, ...]`` to ``[R, ...]``."""

    def run_each(self, weights: Mapping[str, Tensor], states: Tensor) -> Tensor | None:  # noqa: ARG002
        """Run B blocks of this architecture in one go, where there is a faster way than in turn.

        Args:
            weights: ``[B, ...]`` by the architecture's names.
            states: ``[K, R, ...]``; the first B / K blocks read the first of them, and so on.

        Returns:
            ``[B, R, ...]``; None where there is no such way.
        """
        return None


class BlockConfig(BaseModel, ABC):
    """Configuration of a block; ``kind`` names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    any_padding: ClassVar[bool] = False
    """Whether the block knows padding by ``InputShape.pad_id``; for the others it is token 0."""

    @abstractmethod
    def build(self, shape: InputShape) -> Block:
        """Make the block for states of ``shape`` (without the batch dimension).

        Raises:
            ConfigError: If the block cannot take states of that shape.
        """


def build_block(config: BlockConfig, shape: InputShape) -> tuple[Block, InputShape]:
    """Make a block and return it with the shape of its output.

    Raises:
        ConfigError: If the block cannot take states of that shape.
    """
    if shape.tokens and shape.pad_id != 0 and not config.any_padding:
        raise ConfigError(
            f"takes token 0 for padding, but the tokenizer pads with {shape.pad_id}: use a block that knows "
            "the tokenizer's padding, such as 'hf', or another tokenizer"
        )
    block = config.build(shape)
    return block, output_shape(block, shape)


def build_chain(configs: Iterable[BlockConfig], shape: InputShape) -> tuple[list[Block], InputShape]:
    """Make blocks that follow one another, and return them with the shape of the last one's output.

    Raises:
        ConfigError: If one of them cannot take the states that reach it.
    """
    blocks = []
    for config in configs:
        block, shape = build_block(config, shape)
        blocks.append(block)
    return blocks, shape


def vector_of(shape: InputShape) -> int:
    """Return D of an encoding, a vector ``(D,)``.

    Raises:
        ConfigError: If it is something else.
    """
    if shape.tokens or len(shape.dims) != 1 or shape.dims[0] is None:
        raise ConfigError(f"an encoding is a vector (D,), not {shape}: end with a block that gives one")
    return shape.dims[0]


def rates_within(blocks: Mapping[str, tuple[Block, float]]) -> dict[str, float]:
    """Return the rates of blocks within another, each by its module's name, and with a factor of its own."""
    return {
        f"{name}.{weight}": factor * block.rates.get(weight, 1.0)
        for name, (block, factor) in blocks.items()
        for weight, _ in block.named_parameters()
        if factor * block.rates.get(weight, 1.0) != 1.0
    }


def output_shape(block: Block, shape: InputShape) -> InputShape:
    """Run the block on a row of zeros, and return the shape of the result without its batch dimension.

    A dimension that follows an open length of the input is open too.
    """
    was_training = block.training
    block.eval()
    lengths = (EXAMPLE_LENGTH, EXAMPLE_LENGTH + 1) if None in shape.dims else (EXAMPLE_LENGTH,)
    with torch.no_grad():
        results = [block(shape.example(1, length)).shape[1:] for length in lengths]
    block.train(was_training)
    dims = (size if size == other else None for size, other in zip(results[0], results[-1], strict=True))
    return InputShape(dims=tuple(dims), tokens=False)

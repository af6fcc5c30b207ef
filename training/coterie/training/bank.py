"""A bank: blocks of one architecture, their weights stacked along the first axis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from coterie.training.blocks import Block
from coterie.training.ragged import run_ragged
from coterie.training.several import Tensors, each

_DOT = "/"


class Bank(nn.Module):
    """B blocks of one architecture.

    Each parameter of the architecture is held once as ``[B, ...]``, so that an optimiser sees a handful of
    tensors however many blocks there are, and clustering sees a task's weights as one row.
    """

    def __init__(self, make: Callable[[], Block], blocks: int, *, alike: bool = False) -> None:
        """Make ``blocks`` blocks with ``make``; ``alike`` gives all of them the first one's weights."""
        super().__init__()
        made = [make() for _ in range(1 if alike else blocks)]
        # In a list, so that the architecture's own weights are not among this module's.
        self._template = [copy.deepcopy(made[0]).requires_grad_(False)]
        self._narrow = self._compiled = False
        self.weights = nn.ParameterDict()
        for name, _ in made[0].named_parameters():
            stacked = torch.stack([block.get_parameter(name).detach() for block in made])
            self.weights[name.replace(".", _DOT)] = nn.Parameter(
                stacked.expand(blocks, *stacked.shape[1:]).clone() if alike else stacked
            )
        # A module of its own, so that the architecture's constants are saved and loaded with the weights.
        self._constants = nn.Module()
        for name, constant in made[0].named_buffers():
            self._constants.register_buffer(name.replace(".", _DOT), constant.detach().clone())

    def compute_in(self, precision: Literal["fp32", "bf16"], *, compiled: bool = False) -> None:
        """Choose what blocks compute in while training, and whether ``torch.compile`` compiles them."""
        self._narrow, self._compiled = precision == "bf16", compiled
        vars(self).pop("_call", None)
        if compiled:
            self._call = torch.compile(self._call, dynamic=True)  # type: ignore[method-assign]

    @property
    def template(self) -> Block:
        """The architecture."""
        return self._template[0]

    @property
    def blocks(self) -> int:
        """Number of blocks, B."""
        return next((len(weight) for weight in self.weights.values()), 1)

    @property
    def block_parameters(self) -> int:
        """Number of weights of one block."""
        return sum(weight[0].numel() for weight in self.weights.values())

    @property
    def constants(self) -> dict[str, Tensor]:
        """The architecture's buffers, the same for every block, by its own names."""
        return {name.replace(_DOT, "."): constant for name, constant in self._constants.named_buffers()}

    def fill(self, name: str, tensor: Tensor, *, module: str = "") -> None:
        """Give all blocks the same tensor for a parameter or buffer of it, or of a module within."""
        name = f"{module}.{name}" if module else name
        with torch.no_grad():
            if name in self.constants:
                self.constants[name].copy_(tensor)
            else:
                self.weights[name.replace(".", _DOT)].copy_(tensor)  # the same for each block

    def rates(self) -> dict[int, float]:
        """Return the factors of learning rates that the architecture asks for, by the parameters' ids."""
        return {
            id(self.weights[name.replace(".", _DOT)]): factor for name, factor in self.template.rates.items()
        }

    def mean(self) -> dict[str, Tensor]:
        """Return the blocks' mean weights ``[1, ...]``, whose whole gradient reaches every block."""
        return {
            name: weight.detach().mean(dim=0, keepdim=True)
            + (weight - weight.detach()).sum(dim=0, keepdim=True)
            for name, weight in self.weights.items()
        }

    def flat(self) -> Tensor:
        """Return every block's weights as one row, ``[B, P]``, without their gradients."""
        return torch.cat([weight.detach().flatten(1) for weight in self.weights.values()], dim=1)

    def unflatten(self, rows: Tensor) -> dict[str, Tensor]:
        """Cut ``[B', P]`` into tensors ``[B', ...]`` by the names in ``weights``."""
        sizes = [weight[0].numel() for weight in self.weights.values()]
        parts = torch.split(rows, sizes, dim=1)
        return {
            name: part.reshape(len(rows), *weight.shape[1:])
            for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }

    def tensors(self, block: int) -> dict[str, Tensor]:
        """Return one block's detached parameters and buffers by their names in the architecture."""
        return self.name_tensors({name: weight[block] for name, weight in self.weights.items()})

    def name_tensors(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one block's weights and the architecture's buffers, copied, by the architecture's names."""
        named = {name.replace(_DOT, "."): weight for name, weight in weights.items()} | self.constants
        return {name: tensor.detach().clone() for name, tensor in named.items()}

    def run(self, states: Tensor, block: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """Run each state through its block.

        Args:
            states: ``[P, ...]``.
            block: ``[P]`` int64, ascending.
            weights: Weights to use in place of the bank's own, ``[B, ...]`` by the same names.

        Returns:
            ``[P, ...]`` in the same order.
        """
        self.template.train(self.training)
        stacked = dict(self.weights.items()) if weights is None else weights
        count = max((len(weight) for weight in stacked.values()), default=1)
        if count == 1 or len(states) == 0:
            return self._run_one({name: weight[0] for name, weight in stacked.items()}, states)
        needed, sizes = torch.unique_consecutive(block, return_counts=True)
        if len(needed) < count:
            stacked = {name: weight.index_select(0, needed) for name, weight in stacked.items()}
        if self.template.batched:
            return run_ragged(vmap(self._run_one, randomness="different"), stacked, states, sizes)
        counts = sizes.tolist()
        if len(set(counts)) == 1:
            together = self._together(stacked, states.reshape(len(counts), counts[0], *states.shape[1:]))
            if together is not None:
                return together.flatten(0, 1)
        rows = {name: weight.unbind(0) for name, weight in stacked.items()}
        parts = torch.split(states, counts)
        return torch.cat(
            [
                self._run_one({name: row[index] for name, row in rows.items()}, part)
                for index, part in enumerate(parts)
            ]
        )

    def run_only(self, states: Tensors) -> Tensor:
        """Run the one block of a bank of one, ``[S, ...] -> [S, ...]``."""
        self.template.train(self.training)
        return self._run_one({name: weight[0] for name, weight in self.weights.items()}, states)

    def run_each(self, states: Tensor) -> Tensor:
        """Run every block, ``[K, S, ...] -> [B, S, ...]``.

        The first B / K blocks read the first of the states, and so on.
        """
        self.template.train(self.training)
        weights = dict(self.weights.items())
        if self.template.batched:
            same = len(states) == 1
            given = states[0] if same else states.repeat_interleave(self.blocks // len(states), dim=0)
            run = vmap(self._run_one, in_dims=(0, None if same else 0), randomness="different")
            results: Tensor = run(weights, given)
            return results
        together = self._together(weights, states)
        if together is not None:
            return together
        rows = {name: weight.unbind(0) for name, weight in weights.items()}
        readers = self.blocks // len(states)
        return torch.stack(
            [
                self._run_one({name: row[block] for name, row in rows.items()}, states[block // readers])
                for block in range(self.blocks)
            ]
        )

    def _together(self, weights: dict[str, Tensor], states: Tensor) -> Tensor | None:
        """Run blocks in one go, ``[K, S, ...] -> [B, S, ...]``; None where the architecture cannot."""
        if self._compiled or (self.training and self._narrow):
            return None
        named = {name.replace(_DOT, "."): weight for name, weight in weights.items()}
        return self.template.run_each(named, states)

    def _run_one(self, weights: dict[str, Tensor], states: Tensors) -> Tensor:
        named = {name.replace(_DOT, "."): weight for name, weight in weights.items()} | self.constants
        if not (self.training and self._narrow):
            return self._call(named, states)
        with torch.autocast(each(states)[0].device.type, dtype=torch.bfloat16):
            result = self._call(named, states)
        # What mixes, compares and scores states does so in fp32.
        return result.float() if result.dtype == torch.bfloat16 else result

    def _call(self, named: dict[str, Tensor], states: Tensors) -> Tensor:
        result: Tensor = functional_call(self.template, named, (states,))
        return result

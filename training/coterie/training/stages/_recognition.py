"""Recognition: what several tasks share learns, beside their answers, to tell their inputs apart.

Where every input is of one task, a shared block sees the inputs of all of them, and of each is asked only
what its own task wants to know. Which task an input is of is known as well, and costs no label: a block that
has to tell learns features that no task alone would have taught it. With both answers a model of N tasks with
C classes learns what a classifier of N times C classes does, p(task, class) = p(task) p(class | task). It is
the opposite of the adversary of ASP-MTL, and helps where tasks ask of related, but visibly unlike inputs.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks import InputShape

Recognition = Annotated[float, Field(ge=0)]


class Recogniser(nn.Module):
    """A linear classifier of tasks on each of B blocks' states, for training only.

    An image's state ``[C, H, W]`` is averaged over its pixels first.

    Attributes:
        weight: ``[B, D, N]``.
        bias: ``[B, N]``.
        price: What the cross-entropy is multiplied by.
    """

    def __init__(self, shape: InputShape, tasks: int, *, price: float, blocks: int = 1) -> None:
        """Take the shape of a state, the number of tasks, the price of not knowing, and of how many blocks.

        Raises:
            ConfigError: If states are neither vectors nor images.
        """
        super().__init__()
        if shape.tokens or len(shape.dims) not in (1, 3) or shape.dims[0] is None:
            raise ConfigError(
                f"recognition: takes vectors (D,) or images (C, H, W), but this block gives {shape}: leave "
                "it out, or set the block's pool"
            )
        layers = [nn.Linear(shape.dims[0], tasks) for _ in range(blocks)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))
        self.price = price
        self._penalty = torch.zeros(())
        self._right = 0.0

    def notice(self, states: Tensor, task: Tensor, block: Tensor | None = None) -> None:
        """Guess the tasks ``[P]`` of states ``[P, ...]`` of blocks ``[P]``; of the only one by default."""
        vectors = states.flatten(2).mean(dim=2) if states.dim() == 4 else states
        if block is None:
            guess = torch.addmm(self.bias[0], vectors, self.weight[0])
        else:
            every = torch.einsum("pd,bdn->pbn", vectors, self.weight) + self.bias
            guess = every[torch.arange(len(block), device=block.device), block]
        if len(task):
            self._penalty = self.price * nn.functional.cross_entropy(guess, task)
            self._right = float((guess.detach().argmax(dim=1) == task).float().mean())

    def penalty(self) -> Tensor:
        """Return the price of the last batch's guesses; it is asked for once a batch."""
        price, self._penalty = self._penalty, torch.zeros((), device=self.bias.device)
        return price

    def report(self) -> dict[str, float]:
        """Return the share of the last batch's guesses that were right."""
        return {"recognised": self._right}

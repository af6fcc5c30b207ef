"""Views: unlike encodings of one input that all tasks share, each trained to answer without the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, StringConstraints
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.bank import Bank
from coterie.training.blocks import (
    VIEW_ENCODERS,
    Block,
    BlockConfig,
    Encoder,
    InputShape,
    Views,
    build_chain,
    vector_of,
)
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.stages._base import Stage
from coterie.training.stages._config import Positive, Site, StageConfig
from coterie.training.stages._shared import HardStage

RESERVED = frozenset(dir(nn.ModuleDict()))
"""What no view can be called, since its module has that name."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=60)]


class ViewsConfig(StageConfig):
    """One block for all tasks: several encodings of its input, in a row."""

    kind: Literal["views"] = "views"
    views: Annotated[Mapping[Name, Encoder], Field(min_length=2)]
    """Of each view, by a name of its own, a block, or several, one after the other."""
    rates: Mapping[Name, Positive] = Field(default_factory=dict)
    """Learning rates of some views, in multiples of the stage's."""
    alone: bool = True
    """Whether each question is learned from every view by itself, rather than from all of them together."""

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of its result, a vector."""
        made: dict[str, list[Block]] = {}
        sizes, mistakes = [], []
        for name, configs in self.views.items():
            try:
                made[name], following = build_chain(configs, site.shape)
                sizes.append(vector_of(following))
                if name in RESERVED:
                    raise ConfigError("is a name of torch's own: choose another")
            except ConfigError as error:
                mistakes.append(f"views.{name}: {error}")
        if mistakes:
            raise ConfigError("; ".join(mistakes))
        block = Views(made, sizes, self.rates, alone=self.alone)
        stage = ViewsStage(site.name, len(site.tasks), Bank(lambda: block, 1))
        return stage, InputShape(dims=(sum(sizes),))

    def mistakes(self, site: Site) -> list[str]:
        """Return the views that have a rate but no block."""
        own = [f"rates.{name}: there is no such view" for name in self.rates if name not in self.views]
        return [*super().mistakes(site), *own]

    def blocks(self) -> Mapping[str, BlockConfig]:
        """Return the views' blocks by the names of their modules."""
        return {
            f"{VIEW_ENCODERS}.{name}.{place}": block
            for name, blocks in self.views.items()
            for place, block in enumerate(blocks)
        }


class ViewsStage(HardStage):
    """Hard sharing of V views of an input.

    While training, every question is asked V times, each time of one view, the others' encodings being zeros.
    So each learns to answer by itself, as models of an ensemble do, and is not left what others learn faster;
    once they are trained, they answer together, as the ensemble does. (Neverova et al. 2016, "ModDrop", leave
    out inputs of several kinds, at random.)

    Attributes:
        copies: How many times a question is asked while training, V; 1 if views are trained together.
    """

    def __init__(self, name: str, tasks: int, bank: Bank) -> None:
        super().__init__(name, tasks, bank)
        template = bank.template
        if not isinstance(template, Views):
            raise TypeError("the block of this stage is its views")
        self._sizes, self.copies = template.sizes, template.copies

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:
        """Encode the states ``[S, ...]``, ``-> [S, D]``, or ``[V * S, D]`` while training each by itself.

        Questions are then in V equal parts, of which part v reads view v; so it is for every set of gates.
        """
        state = super().forward(state, task, draw)
        if self.copies == 1 or draw is None or not self.training:
            return state
        states, number = len(state.values), torch.arange(len(state.position), device=state.position.device)
        view = number % draw.questions // (draw.questions // self.copies)
        own = torch.arange(self.copies, device=state.values.device).repeat_interleave(
            torch.tensor(self._sizes, device=state.values.device)
        )
        # By itself a view says as much as all of them together.
        mask = (own == torch.arange(self.copies, device=own.device).unsqueeze(1)) * self.copies
        alone = (state.values.unsqueeze(0) * mask.unsqueeze(1)).flatten(0, 1)
        return State(alone, state.position + states * view)

"""How a configuration becomes a stage: what all stages' configurations have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from coterie.runtime.errors import ConfigError
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import AnyBlockConfig, Block, BlockConfig, InputShape, build_block
from coterie.training.stages._base import Stage

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where in a model a stage is to stand.

    Attributes:
        name: The stage's name.
        tasks: The model's tasks.
        shape: Shape of the states that reach it.
        start: Epochs until the cluster layers before it have been clustered.
        seed: Of whatever the stage draws for itself.
    """

    name: str
    tasks: tuple[TaskSpec, ...]
    shape: InputShape
    start: int = 0
    seed: int = 0


class StageConfig(BaseModel, ABC):
    """Configuration of a stage; its ``kind`` names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)
    """Name in plans and reports; made from the kind and position when not given."""
    lr: Positive | None = None
    """Learning rate of this stage's weights; the trainer's when not given."""
    weight_decay: NotNegative | None = None
    """Decay of this stage's weights; the trainer's when not given."""

    @abstractmethod
    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of the states that it hands on.

        Raises:
            ConfigError: If it cannot take the states that reach it; the message starts with the option.
        """

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape, each as ``option: what``."""
        del site
        return []

    def blocks(self) -> Mapping[str, BlockConfig]:
        """Return what the stage's blocks are made of, by the names of the modules in each of them."""
        return {}

    def standing(self, start: int) -> int:
        """Return after how many epochs what this stage shares stands; ``start`` for the stages before it."""
        return start


class BlockStageConfig(StageConfig):
    """Configuration of a stage whose bank is made of one block's architecture."""

    block: AnyBlockConfig

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of its block's results."""
        try:
            block, following = build_block(self.block, site.shape)
        except ConfigError as error:
            raise ConfigError(f"block: {error}") from error
        # The block that told the shape is the bank's first one.
        made = [block]
        return self.stage(site, lambda: made.pop() if made else self.block.build(site.shape)), following

    def blocks(self) -> Mapping[str, BlockConfig]:
        """Return the block."""
        return {"": self.block}

    @abstractmethod
    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage of blocks that ``make`` makes."""

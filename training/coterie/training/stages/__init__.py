"""Stages: each a bank of blocks of which a task uses a sparse, weighted subset.

One way of sharing a file: its configuration, and the stage that it builds. A new way is one more file, and
its name in the union below.
"""

from typing import Annotated

from pydantic import Field

from coterie.training.stages._base import BankStage, Draw, Stage
from coterie.training.stages._cluster import ClusterConfig, ClusterMode, ClusterStage
from coterie.training.stages._config import BlockStageConfig, Site, StageConfig
from coterie.training.stages._gated import GatedConfig, GatedStage, MixtureInit
from coterie.training.stages._head import HeadConfig, HeadStage
from coterie.training.stages._shared import HardConfig, HardStage, SpecificConfig, SpecificStage

AnyStageConfig = Annotated[
    HardConfig | SpecificConfig | ClusterConfig | GatedConfig, Field(discriminator="kind")
]
"""Every stage a configuration can name; told apart by ``kind``."""

__all__ = [
    "AnyStageConfig",
    "BankStage",
    "BlockStageConfig",
    "ClusterConfig",
    "ClusterMode",
    "ClusterStage",
    "Draw",
    "GatedConfig",
    "GatedStage",
    "HardConfig",
    "HardStage",
    "HeadConfig",
    "HeadStage",
    "MixtureInit",
    "Site",
    "SpecificConfig",
    "SpecificStage",
    "Stage",
    "StageConfig",
]

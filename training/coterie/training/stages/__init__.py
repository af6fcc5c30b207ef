"""Stages: each a bank of blocks of which a task uses a sparse, weighted subset.

One way of sharing a file: its configuration, and the stage that it builds. A new way is one more file, and
its name in the union below.
"""

from typing import Annotated

from pydantic import Field

from coterie.training.draws import Draw
from coterie.training.stages._base import BankStage, Stage
from coterie.training.stages._cluster import ClusterConfig
from coterie.training.stages._cluster_stage import ClusterMode, ClusterStage
from coterie.training.stages._config import BlockStageConfig, Site, StageConfig
from coterie.training.stages._gated import GatedConfig, GatedStage
from coterie.training.stages._head import HeadConfig, HeadStage
from coterie.training.stages._input_gated import InputGatedConfig
from coterie.training.stages._ple import PleConfig
from coterie.training.stages._shared import HardConfig, HardStage, SpecificConfig, SpecificStage
from coterie.training.stages._shared_private import SharedPrivateConfig, SharedPrivateStage
from coterie.training.stages._soft import SoftConfig, SoftPenalty, SoftStage
from coterie.training.stages._stitched import StitchedConfig
from coterie.training.stages._stitched_stage import StitchedStage
from coterie.training.stages._views import ViewsConfig, ViewsStage
from coterie.training.stages.gates import MixtureInit

AnyStageConfig = Annotated[
    HardConfig
    | ViewsConfig
    | SpecificConfig
    | SoftConfig
    | SharedPrivateConfig
    | ClusterConfig
    | GatedConfig
    | InputGatedConfig
    | PleConfig
    | StitchedConfig,
    Field(discriminator="kind"),
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
    "InputGatedConfig",
    "MixtureInit",
    "PleConfig",
    "SharedPrivateConfig",
    "SharedPrivateStage",
    "Site",
    "SoftConfig",
    "SoftPenalty",
    "SoftStage",
    "SpecificConfig",
    "SpecificStage",
    "Stage",
    "StageConfig",
    "StitchedConfig",
    "StitchedStage",
    "ViewsConfig",
    "ViewsStage",
]

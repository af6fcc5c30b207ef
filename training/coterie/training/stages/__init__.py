"""Stages: each a bank of blocks of which a task uses a sparse, weighted subset. One way of sharing a file."""

from coterie.training.stages._base import BankStage, Draw, Stage
from coterie.training.stages._cluster import ClusterMode, ClusterStage
from coterie.training.stages._gated import GatedStage, MixtureInit
from coterie.training.stages._head import HeadStage
from coterie.training.stages._shared import HardStage, SpecificStage

__all__ = [
    "BankStage",
    "ClusterMode",
    "ClusterStage",
    "Draw",
    "GatedStage",
    "HardStage",
    "HeadStage",
    "MixtureInit",
    "SpecificStage",
    "Stage",
]

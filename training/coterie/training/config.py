"""The configuration of a training: typed, frozen, the same names in YAML and on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from coterie.training.data import DataConfig
from coterie.training.stages import AnyStageConfig, HeadConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """The stages, from the input on; the heads follow by themselves."""

    stages: tuple[AnyStageConfig, ...]
    head: HeadConfig = HeadConfig()
    standardise: bool = True
    """Whether features, or pixels by channel, are standardised with the training data's statistics."""


class TrainerConfig(_Frozen):
    """How long and how fast to train, and on what to decide."""

    epochs: Count = 20
    batch_size: Count = 64
    """Inputs in a batch; each comes with all questions asked about it."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How all learning rates go on: as they are, or down to nothing at the last batch."""
    gate_lr: Positive = 1e-2
    """Learning rate of the gates' logits."""
    weight_decay: NotNegative = 0.0
    gradient_clip: Positive | None = None
    """Largest norm of the gradient."""
    gate_samples: Count = 2
    """Gates drawn for each question; with two or more, each is the others' baseline (leave-one-out)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    monitor: Literal["metric", "loss"] = "metric"
    """What the best checkpoint is best in, on dev: mean primary metric over tasks, or loss."""
    patience: Count | None = None
    """Epochs without improvement after which to stop; never when not given."""
    task_balance: Literal["questions", "tasks"] = "questions"
    """Whether every question weighs the same, or every task."""
    threads: Count | None = None
    """Threads of torch; its own choice when not given. Results repeat for the same number only."""


class RunConfig(_Frozen):
    """A whole training."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    model: ModelConfig
    trainer: TrainerConfig = TrainerConfig()

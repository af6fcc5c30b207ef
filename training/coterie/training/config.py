"""The configuration of a training: typed, frozen, the same names in YAML and on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from coterie.training.blocks import AnyBlockConfig
from coterie.training.data import DataConfig
from coterie.training.stages import ClusterMode, MixtureInit

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _StageConfig(_Frozen):
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)
    """Name in plans and reports; made from the kind and position when not given."""
    lr: Positive | None = None
    """Learning rate of this stage's weights; the trainer's when not given."""
    weight_decay: NotNegative | None = None
    """Decay of this stage's weights; the trainer's when not given."""


class HardConfig(_StageConfig):
    """One block for all tasks."""

    kind: Literal["hard"] = "hard"
    block: AnyBlockConfig


class SpecificConfig(_StageConfig):
    """A block for each task."""

    kind: Literal["specific"] = "specific"
    block: AnyBlockConfig
    alike: bool = False
    """Whether all tasks start from the same weights."""


class ClusterConfig(_StageConfig):
    """A cluster layer (NCMTL): tasks with similar weights share their mean."""

    kind: Literal["cluster"] = "cluster"
    block: AnyBlockConfig
    clusters: Count
    """Number of centroids, K."""
    mode: ClusterMode = "shadow"
    """``shadow`` keeps the tasks' own weights until the freeze; ``literal`` is Algorithm 1 as printed."""
    start: Annotated[int, Field(ge=0)] | None = None
    """Epochs for which all tasks share one block here; when not given, until the cluster layers before this
    one have been clustered, so that tasks are compared behind clusters that stand."""
    warmup: Annotated[int, Field(ge=0)] = 2
    """Epochs of unclustered weights after that, before the first clustering."""
    freeze_after: Count | None = None
    """Epochs after which the assignment is final; never when not given."""
    pull: NotNegative = 0.1
    """alpha of equation 3: how strongly a task's weights are pulled to their centroid."""
    every: Count = 1
    """Batches from one clustering to the next."""


class GatedConfig(_StageConfig):
    """Gated experts (Task Multi-Clustering): each task learns which of M experts it mixes."""

    kind: Literal["gated"] = "gated"
    block: AnyBlockConfig
    experts: Count
    """Number of experts, M."""
    density_penalty: NotNegative = 0.01
    """lambda: the price of one more expert for a task, in units of loss."""
    density_warmup: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the price rises from nothing to lambda: experts specialise before gates close."""
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """p_i(t) at the start; 0.5 is a logit of 0, as in the paper."""
    mixture: MixtureInit = "gaussian"
    """w(t) at the start: standard Gaussian, as in the paper; 1 for all; or the mean of the experts drawn."""
    gates: Literal["learned", "all"] = "learned"
    """``all`` takes every expert always: the ungated mixture of section 4.1."""


AnyStageConfig = Annotated[
    HardConfig | SpecificConfig | ClusterConfig | GatedConfig, Field(discriminator="kind")
]


class HeadConfig(_Frozen):
    """The tasks' last layers."""

    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    alike: bool = True
    """Whether equally wide heads start from the same weights."""
    init_scale: Positive = 1.0
    """Multiplies the initial weights."""


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

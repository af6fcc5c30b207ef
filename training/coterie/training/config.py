"""The configuration of a training: typed, frozen, the same names in YAML and on the command line."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coterie.training.blocks import Encoder
from coterie.training.budget import BudgetConfig
from coterie.training.data import DataConfig
from coterie.training.draws import GateEstimator
from coterie.training.stages import AnyStageConfig, HeadConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Sampler = Literal["natural", "proportional", "temperature", "uniform"]
Surgery = Literal["pcgrad", "mgda", "imtlg", "alignedmtl", "cagrad", "upgrad", "nashmtl"]
Balancing = Literal["none", "uncertainty"] | Surgery


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """The stages, from the input on; the heads follow by themselves."""

    inputs: dict[str, Encoder] = Field(default_factory=dict)
    """Where the data has several inputs, what encodes each, by its name; the encodings side by side are what
    the first stage takes."""
    stages: tuple[AnyStageConfig, ...]
    head: HeadConfig = HeadConfig()
    standardise: bool = True
    """Whether features, or pixels by channel, are standardised with the training data's statistics."""
    budget: BudgetConfig | None = None
    """What a task may use at most."""


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
    gate_estimator: GateEstimator = "auto"
    """How the gates' gradient is estimated: ``auto`` takes the least variance for about the same work."""
    gate_samples: Annotated[int, Field(ge=1, le=8)] = 2
    """Sets of gates drawn for each question, for every estimator but ``local``."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    monitor: Literal["metric", "loss"] = "metric"
    """What the best checkpoint is best in, on dev: mean primary metric over tasks, or loss."""
    patience: Count | None = None
    """Epochs without improvement after which to stop; never when not given."""
    task_balance: Literal["questions", "tasks"] = "questions"
    """Whether every question weighs the same, or every task."""
    task_weights: dict[str, NotNegative] = Field(default_factory=dict)
    """Factors of some tasks' weights, by the tasks' names."""
    balancing: Balancing = "none"
    """How unlike tasks share: learned weights (``uncertainty``), or gradient surgery (the extra balance)."""
    sampler: Sampler = "natural"
    """How often each task is asked in an epoch: as it is, or at a rate of its own."""
    temperature: Positive = 2.0
    """T of the sampler ``temperature``: a task with n questions is asked in proportion to n^(1/T)."""
    bucket: Count = 1
    """Batches that the sampler ``natural`` draws together and divides by length: less of them is padding."""
    accumulate: Count = 1
    """Parts in which a batch is computed, one after the other: less memory, the same update."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running average of the weights, which is judged and kept in their place."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What blocks compute in while training; gates, mixtures, heads, losses and clusterings are fp32."""
    compile: bool = False
    """Whether blocks are compiled by ``torch.compile`` while training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; ``auto`` is a CUDA device where there is one."""
    threads: Count | None = None
    """Threads of torch; its own choice when not given. Results repeat for the same number only."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if self.gate_estimator == "leave_one_out" and self.gate_samples < 2:
            raise ValueError("gate_samples: leave_one_out compares at least 2 sets of gates")
        if self.gate_estimator == "disarm" and self.gate_samples % 2:
            raise ValueError("gate_samples: disarm draws pairs of gates: give an even number")
        return self


class TeacherConfig(_Frozen):
    """Teachers of one kind; what is not given is the run's own."""

    model: ModelConfig | None = None
    """Their stages, for teachers that see something else in an input than the model does."""
    trainer: TrainerConfig | None = None
    """How they are trained."""
    number: Count = 1
    """How many of them, each with a seed of its own."""


class DistillationConfig(_Frozen):
    """Models trained first, whose mean answer is learned where a question has no label."""

    teachers: Annotated[tuple[TeacherConfig, ...], Field(min_length=1)] = (TeacherConfig(number=3),)
    """The kinds of teachers; together they are one ensemble."""
    weight: Positive = 1.0
    """What a question without a label weighs, beside 1 for one that has one."""
    labelled: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the teachers in the loss of a question with a label: they have learned it too, so their answer
    says little new about it."""


class RunConfig(_Frozen):
    """A whole training."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    model: ModelConfig
    trainer: TrainerConfig = TrainerConfig()
    distillation: DistillationConfig | None = None
    """Teachers, for questions without a label."""

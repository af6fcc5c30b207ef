"""What a task answers: classes, several yes/no labels, or numbers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskKind = Literal["classification", "multilabel", "regression"]

ROUTER = "router"
"""The name of the model that answers for every task; no task may be called so."""


class TaskSpec(BaseModel):
    """A task's name and the meaning of its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    kind: TaskKind
    labels: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, of the labels (multilabel) or of the numbers (regression), in output order."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name == ROUTER:
            raise ValueError(f"{ROUTER!r} is the name of the router model: give the task another name")
        if any(ord(character) < 32 for character in self.name):
            raise ValueError("a task's name has no control characters")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r} has two labels of the same name")
        if self.kind == "classification" and len(self.labels) < 2:
            raise ValueError(f"task {self.name!r} is a classification with fewer than two classes")
        return self

    @property
    def width(self) -> int:
        """Number of outputs, C."""
        return len(self.labels)

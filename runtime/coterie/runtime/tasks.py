"""What a task answers: a class, several yes/no labels, numbers, or a tag for each token."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskKind = Literal["classification", "multilabel", "regression", "tagging"]

_PRIMARY = {"classification": "accuracy", "multilabel": "roc_auc", "regression": "r2", "tagging": "accuracy"}

ROUTER = "router"
"""The name of the model that answers for every task; no task may be called so."""


class TaskSpec(BaseModel):
    """A task's name and the meaning of its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    kind: TaskKind
    labels: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, labels (multilabel), numbers (regression) or tags (tagging), in output order."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name == ROUTER:
            raise ValueError(f"{ROUTER!r} is the name of the router model: give the task another name")
        if any(ord(character) < 32 for character in self.name):
            raise ValueError("a task's name has no control characters")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r} has two labels of the same name")
        if self.kind in ("classification", "tagging") and len(self.labels) < 2:
            raise ValueError(f"task {self.name!r} is a {self.kind} with fewer than two classes")
        return self

    @property
    def width(self) -> int:
        """Number of outputs, C."""
        return len(self.labels)

    @property
    def spans(self) -> bool:
        """Whether the tags mark spans: B-x begins one of type x, I-x goes on with it, O is outside of all."""
        marks = [label.partition("-")[0] for label in self.labels]
        return self.kind == "tagging" and "B" in marks and set(marks) <= {"B", "I", "O"}

    @property
    def metric(self) -> str:
        """The metric that tasks of this kind are compared by; higher is better."""
        return "f1" if self.spans else _PRIMARY[self.kind]

"""What configurations of data are made of: names, shares, and the inputs where there are several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from coterie.runtime.tasks import TaskKind
from coterie.training.yaml_config import AbsolutePath

EVERY = "*"
"""Stands for every task that has no entry of its own."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}", re.ASCII)

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) else value


def _for_every_task(value: Any) -> Any:
    return {EVERY: value} if isinstance(value, str | list | tuple) else value


def _one_file(value: Any) -> Any:
    return {"all": value} if isinstance(value, str | Path) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
"""One name, or a list of names."""
AnyNames = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""The same, or none."""
Files = Annotated[
    dict[Literal["all", "train", "dev", "test", "ood"], AbsolutePath],
    BeforeValidator(_one_file),
    Field(min_length=1),
]
"""One file, or a file for each split."""
Kinds = Annotated[dict[str, TaskKind], BeforeValidator(_for_every_task)]
Labels = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_for_every_task)]


class Frozen(BaseModel):
    """Base of all configurations of data."""

    # Names of columns, classes and splits are often written as numbers.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class TableInput(Frozen):
    """One of several inputs of a table: a text, or features."""

    text: str | None = None
    """Column of the texts."""
    features: Names | None = None
    """Columns of the features: names, patterns such as ``x_*``, or one column of lists."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.features is None):
            raise ValueError("give either text (one column) or features (one or more columns)")
        return self


class ArrayInput(Frozen):
    """One of several inputs of an archive: images, or features."""

    images: str | None = None
    """Array ``[n, H, W, C]`` (or ``[n, H, W]``) uint8."""
    features: str | None = None
    """Array ``[n, D]``."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.images is None) == (self.features is None):
            raise ValueError("give either images or features (the name of one array)")
        return self


def check_input_names(inputs: Mapping[str, object]) -> None:
    """Raise a ValueError unless there are several inputs whose names can be tensors' of the served models."""
    if len(inputs) < 2:
        raise ValueError("inputs: name two or more; one needs no name")
    for name in inputs:
        if not _NAME.fullmatch(name):
            raise ValueError(f"inputs: {name[:80]!r} is no name: use letters, digits and _, a letter first")
    taken = sorted({"row", "task", "scores", "probabilities", "label"}.intersection(inputs))
    if taken:
        raise ValueError(f"inputs: {taken[0]!r} is a name of the served models' own: choose another")

"""What is served: the content of a store's ``current.json``."""

from __future__ import annotations

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coterie.runtime.errors import BundleError

POINTER = "current.json"
SCHEMA_VERSION = 1
_LONGEST_HISTORY = 100


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Frozen):
    """A version that is tried out beside the one that is served."""

    version: int = Field(ge=1)
    share: float = Field(gt=0, le=1)
    """Of the requests, at random."""
    shadow: bool = False
    """Its answers are compared with the served version's and thrown away; if not, they are given."""


class Pointer(_Frozen):
    """Which version is served, what was served before it, and what is on trial."""

    schema_version: int = SCHEMA_VERSION
    serial: int = Field(ge=1)
    """Grows with every change: a server that could not load a version tries again after one."""
    history: tuple[int, ...] = Field(min_length=1)
    """The versions a rollback goes back through; the last one is served."""
    trial: Trial | None = None

    @model_validator(mode="after")
    def _is_of_versions(self) -> Self:
        if min(self.history) < 1:
            raise ValueError("versions are numbered from 1")
        return self

    @property
    def current(self) -> int:
        """The version that is served."""
        return self.history[-1]

    def switched(self, number: int) -> Pointer:
        """Return the pointer after a switch; a rollback then leads back to what is served now."""
        history = (*(each for each in self.history if each != number), number)
        return Pointer(serial=self.serial + 1, history=history[-_LONGEST_HISTORY:])

    def back(self, number: int | None) -> Pointer:
        """Return the pointer after a rollback: to the version before, or to a certain one.

        Raises:
            BundleError: If there is none before.
        """
        if number is None:
            if len(self.history) == 1:
                raise BundleError(
                    f"version {self.current} is the first one served: there is none to go back to; "
                    "name one with --to"
                )
            return Pointer(serial=self.serial + 1, history=self.history[:-1])
        if number in self.history:
            until = self.history.index(number) + 1
            return Pointer(serial=self.serial + 1, history=self.history[:until])
        return self.switched(number)

    def shortened(self, length: int) -> Pointer:
        """Return the pointer with no more than so many versions of its history."""
        return self.model_copy(update={"serial": self.serial + 1, "history": self.history[-length:]})

    def tried(self, trial: Trial | None) -> Pointer:
        """Return the pointer with a version on trial, or with none."""
        return self.model_copy(update={"serial": self.serial + 1, "trial": trial})

    def dumps(self) -> bytes:
        """Return the file's content."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_pointer(content: bytes) -> Pointer:
    """Read a pointer.

    Raises:
        BundleError: If it is none, or of a newer schema.
    """
    try:
        raw = json.loads(content)
        newer = isinstance(raw, dict) and raw.get("schema_version", 0) > SCHEMA_VERSION
        if not newer:
            return Pointer.model_validate(raw)
    except (ValueError, TypeError, RecursionError, ValidationError) as error:
        raise BundleError(
            f"{POINTER} of the store cannot be understood: write it again with coterie rollback --to VERSION"
        ) from error
    raise BundleError(f"{POINTER} is of a newer coterie's store: upgrade coterie")

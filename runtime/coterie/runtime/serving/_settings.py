"""What a server process is told, through environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coterie.runtime.errors import ConfigError

PREFIX = "COTERIE_"


class Settings(BaseModel):
    """Settings of one server; each is the environment variable of its name: ``COTERIE_BUNDLE``, ..."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path | None = None
    """Folder of the bundle, or of a store of bundles."""
    keep_versions: int = Field(default=1, ge=0)
    """Versions of a store that stay loaded after others took their place."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """How often a worker looks which version its store serves."""
    public_key: Path | None = None
    """Ed25519 public key in PEM: a bundle that is not signed with its private half is refused."""
    workers: int = Field(default=1, ge=1)
    """Server processes; each holds the bundle once."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that one run of the engine may use; by default one a core."""
    runs: int = Field(default=1, ge=1)
    """Runs of the engine at once, in each worker."""
    run_seconds: float = Field(default=0.05, gt=0)
    """Seconds that one run should take at most; batches are cut to it."""
    max_waiting_rows: int = Field(default=16384, ge=1)
    """Rows that wait or run in a worker; what would be more is refused with 429 or RESOURCE_EXHAUSTED."""
    max_task_rows: int = Field(default=8192, ge=1)
    """Of those, rows of one task."""
    max_waiting_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """Bytes of the inputs that wait or run in a worker."""
    max_body: int = Field(default=16 * 1024 * 1024, ge=1)
    """Largest request, in bytes; a larger one is refused with 413 or RESOURCE_EXHAUSTED."""
    max_rows: int = Field(default=4096, ge=1)
    """Most inputs, and most questions, of one request."""
    grpc_host: str = "127.0.0.1"
    """Address that the gRPC server listens on."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port of the gRPC server; 0 is none."""
    shutdown_seconds: float = Field(default=10.0, gt=0)
    """How long a stopping server waits for the requests it has accepted."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable is one that is not set.

        Raises:
            ConfigError: If any is wrong; lists all of them.
        """
        names = {f"{PREFIX}{name.upper()}": name for name in cls.model_fields}
        values = {name: environment[key] for key, name in names.items() if environment.get(key)}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
            raise ConfigError("the server's environment variables are wrong", problems) from error

    def environment(self) -> dict[str, str]:
        """Return the variables that ``from_environment`` reads these settings from."""
        values = {f"{PREFIX}{name.upper()}": getattr(self, name) for name in type(self).model_fields}
        return {key: "" if value is None else str(value) for key, value in values.items()}

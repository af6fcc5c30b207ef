"""What a server process is told, through environment variables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from coterie.runtime._json import unique_names
from coterie.runtime.engine._engine import SESSION_BYTES
from coterie.runtime.engine._sessions import Weights
from coterie.runtime.errors import ConfigError
from coterie.runtime.serving.access._tls import Tls
from coterie.runtime.serving.models._sizes import LONGEST_TEXT

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
    device: Literal["cpu", "cuda"] = "cpu"
    """What runs the graphs; ``cuda`` needs ``coterie[gpu]``."""
    weights: Weights = "fast"
    """``fast``: each worker packs the weights into a form of its own; ``shared``: all map one copy."""
    session_bytes: int = Field(default=SESSION_BYTES, ge=0)
    """What sessions of single tasks may take in each worker, in bytes."""
    runs: int = Field(default=1, ge=1)
    """Runs of the engine at once, in each worker."""
    run_seconds: float = Field(default=0.02, gt=0)
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
    max_text: int = Field(default=LONGEST_TEXT, ge=1)
    """Most characters of one text."""
    grpc_host: str = "127.0.0.1"
    """Address that the gRPC server listens on."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port of the gRPC server; 0 is none."""
    keys: Path | None = None
    """File of the keys that requests must bring (``coterie key``); without one anybody may ask."""
    tls_cert: Path | None = None
    """Certificate in PEM, with those that lead to its authority; both transports then speak TLS only."""
    tls_key: Path | None = None
    """Its private key in PEM."""
    tls_client_ca: Path | None = None
    """Authority, in PEM, of the certificates that clients must show; without one they need none."""
    task_weights: dict[str, float] = Field(default_factory=dict)
    """How much more often than others, whose weight is 1, tasks have their turn; as JSON."""
    metrics_tasks: int = Field(default=1000, ge=0)
    """Tasks, and blocks, with counters of their own in ``/metrics``; other tasks are one, ``other``."""
    metrics_histograms: int = Field(default=100, ge=0)
    """Tasks with histograms of their own there."""
    log_format: Literal["text", "json"] = "text"
    """How a worker writes its log."""
    access_log: float = Field(default=1.0, ge=0, le=1)
    """Share of the answered requests that have a line in the log; unless 0, all that failed have one."""
    shutdown_seconds: float = Field(default=10.0, gt=0)
    """How long a stopping server waits for the requests it has accepted."""

    @field_validator("task_weights", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value, object_pairs_hook=unique_names) if isinstance(value, str) else value

    @field_validator("task_weights")
    @classmethod
    def _are_positive(cls, value: dict[str, float]) -> dict[str, float]:
        wrong = [task for task, weight in value.items() if not 0 < weight < math.inf]
        if wrong:
            raise ValueError(f"a weight is a number above 0, and not that of {', '.join(wrong)}")
        return value

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate (TLS_CERT) and its key (TLS_KEY) belong together: give both")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(
                "clients are asked for certificates (TLS_CLIENT_CA) only over TLS: give TLS_CERT"
            )
        return self

    @property
    def tls(self) -> Tls | None:
        """The certificates, where both transports speak TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Tls(self.tls_cert, self.tls_key, self.tls_client_ca)

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
            problems = [
                f"{PREFIX}{str(item['loc'][0] if item['loc'] else 'TLS').upper()}: {item['msg']}"
                for item in error.errors()
            ]
            raise ConfigError("the server's environment variables are wrong", problems) from error

    def environment(self) -> dict[str, str]:
        """Return the variables that ``from_environment`` reads these settings from."""
        values = {f"{PREFIX}{name.upper()}": getattr(self, name) for name in type(self).model_fields}
        return {key: as_text(value) for key, value in values.items()}


def as_text(value: Any) -> str:
    """Return a setting as ``Settings.from_environment`` reads it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value)

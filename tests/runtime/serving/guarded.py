"""A real server that takes questions with a key only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from tritonclient.grpc import service_pb2_grpc

from coterie.runtime.serving import Addresses, running_server
from coterie.runtime.serving.access._keys import add_key


@dataclass
class Guarded:
    """A server with keys."""

    at: Addresses
    file: Path
    keys: dict[str, str]

    def client(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"http://{self.at.http}", headers=headers)

    def stub(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(self.at.grpc or ""))


@contextlib.contextmanager
def guarded_server(bundle: Path, file: Path) -> Iterator[Guarded]:
    keys = {
        "all": add_key(file, "all", metrics=True),
        "some": add_key(file, "some", tasks=["mood", "t*"]),
    }
    with running_server(bundle, threads=1, keys=file) as at:
        yield Guarded(at, file, keys)

"""Everything that was measured of one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie.cli._bench._engine import Case
from coterie.cli._bench._memory import Resident
from coterie.cli._bench._served import Served
from coterie.cli._bench._sizes import Sizes
from coterie.cli._machine import machine


@dataclass(frozen=True)
class Findings:
    """What was measured.

    Attributes:
        name: The model's.
        tasks: N.
        asked: Tasks that were asked, each with an ordinary session beside the engine.
        threads: Threads of a run.
        precision: What weights are stored in.
        inputs: Whether they were ``given`` or ``random``.
        sizes: Bytes on disk.
        memory: Resident bytes of each way.
        cases: Time of each kind of request, in this process.
        server_start_s: Seconds until a server answered; None where none was started.
        served: Time of requests to it.
    """

    name: str
    tasks: int
    asked: int
    threads: int
    precision: str
    inputs: str
    sizes: Sizes
    memory: dict[str, Resident]
    cases: Sequence[Case]
    server_start_s: float | None
    served: Sequence[Served]

    def as_json(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {
            "benchmark": "bench",
            "machine": machine(),
            "bundle": {
                "name": self.name,
                "tasks": self.tasks,
                "precision": self.precision,
            },
            "asked": {"tasks": self.asked, "inputs": self.inputs, "threads": self.threads},
            "bytes": asdict(self.sizes),
            "memory": {way: asdict(resident) for way, resident in self.memory.items()},
            "engine": [case.as_json() for case in self.cases],
            "server": {"start_s": self.server_start_s, "ways": [asdict(each) for each in self.served]},
        }

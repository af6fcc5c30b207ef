"""What a server was measured to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """One way of asking a server.

    Attributes:
        transport: ``HTTP`` (binary tensors) or ``gRPC``.
        clients: Connections, each with one question at a time.
        per_second: Answers a second.
        median_ms: Milliseconds from a question to its answer.
        p99_ms: Milliseconds of all but one of 100.
        failures: Questions without an answer.
        client_cpu: Share of a core that the asking took; near 1 it is the client that was measured.
    """

    transport: str
    clients: int
    per_second: float
    median_ms: float
    p99_ms: float
    failures: int
    client_cpu: float

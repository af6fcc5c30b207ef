"""Asks a server what its OpenAPI page allows, and what it does not; schemathesis makes the requests."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from .server_trials import HTTP_ALLOWED, SECONDS, Judge, Outcome

MODES = {"allowed": GenerationMode.POSITIVE, "not allowed": GenerationMode.NEGATIVE}


def over_openapi(address: str, examples: int, judge: Judge, seed: int = 0) -> list[Outcome]:
    """Send as many requests to every operation of both kinds, and return what came of them."""
    schema = schemathesis.openapi.from_url(f"http://{address}/docs.json")
    outcomes: list[Outcome] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        for kind, mode in MODES.items():
            outcomes += _ask(operation, mode=mode, kind=kind, examples=examples, judge=judge, seed=seed)
    return outcomes


def _ask(
    operation: Any, *, mode: GenerationMode, kind: str, examples: int, judge: Judge, seed: int
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @hypothesis.given(case=operation.as_strategy(mode))
    def ask(case: Case) -> None:
        response = case.call(timeout=SECONDS)
        status, text = str(response.status_code), f"{response.headers} {response.text}"
        wrong = judge.leak(text)
        if status not in HTTP_ALLOWED:
            wrong = f"status {status}: {case.as_curl_command()} gave {text[:300]}"
        outcomes.append(Outcome("openapi", seed, kind, status, wrong))

    # Whatever is sent to an operation that takes nothing is allowed.
    with contextlib.suppress(Unsatisfiable):
        ask()
    return outcomes

"""Thousands of requests to real servers; ``python -m benchmarks.serving.fuzz`` sends as many as one likes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from coterie.runtime.serving import running_server

from ..runtime.handmade import FEATURES, HandMade, write_bundle
from .openapi import over_openapi
from .requests import Target
from .server_trials import Judge, Outcome, over_grpc, over_http

CASES = 1000


@dataclass(frozen=True)
class Served:
    """A server and all that came of asking it."""

    http: str
    made: HandMade
    judge: Judge
    outcomes: list[Outcome]


@pytest.fixture(scope="module", params=["features", "texts"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    made = write_bundle(folder / "bundle", text=request.param == "texts")
    target = Target(made.names, "text" if made.text else "features", 0 if made.text else FEATURES)
    judge = Judge([str(folder), str(Path.home())])
    with running_server(made.path, threads=1, max_body=1 << 20, max_rows=64) as addresses:
        outcomes = asyncio.run(over_http(addresses.http, target, range(CASES), judge))
        outcomes += asyncio.run(over_grpc(str(addresses.grpc), target, range(CASES), judge))
        yield Served(addresses.http, made, judge, outcomes)


def test_no_request_makes_the_server_fail_or_tell_of_itself(served: Served) -> None:
    assert [outcome for outcome in served.outcomes if outcome.wrong] == []


def test_right_requests_and_wrong_ones_were_among_them(served: Served) -> None:
    statuses = Counter((outcome.transport, outcome.status) for outcome in served.outcomes)
    for each in (("http", "200"), ("http", "400"), ("grpc", "OK"), ("grpc", "INVALID_ARGUMENT")):
        assert statuses[each] > CASES // 20, statuses


def test_the_server_still_answers_right(served: Served) -> None:
    inputs = served.made.inputs(1)
    asked = {"task": "mood", "inputs": inputs if served.made.text else inputs.tolist()}
    answer = httpx.post(f"http://{served.http}/predict", json=asked).json()["answers"][0]
    np.testing.assert_allclose(
        list(answer["scores"].values()), served.made.scores("mood", inputs)[0], rtol=1e-4, atol=1e-5
    )


def test_a_leak_is_seen() -> None:
    judge = Judge(["/srv/models"])
    assert judge.leak("no such file: /srv/models/a.onnx")
    assert judge.leak('Traceback (most recent call last):\n  File "x.py", line 1')
    assert not judge.leak("there is no task 'x'")


def test_what_the_openapi_page_allows_and_what_not_makes_no_server_fail(served: Served) -> None:
    outcomes = over_openapi(served.http, 10, served.judge)
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert {"200", "400"} <= {outcome.status for outcome in outcomes}

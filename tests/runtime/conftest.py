from __future__ import annotations

from collections.abc import Iterator

import pytest

from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses, running_server

from .handmade import HandMade, write_bundle


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A bundle over four features. Read only: tests that change files write their own."""
    return write_bundle(tmp_path_factory.mktemp("features") / "bundle")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A bundle over texts. Read only."""
    return write_bundle(tmp_path_factory.mktemp("texts") / "bundle", text=True)


WAYS = [(mode, weights) for mode in ("router", "task") for weights in ("fast", "shared")]


@pytest.fixture(params=WAYS, ids="-".join)
def engine(request: pytest.FixtureRequest, features: HandMade) -> Engine:
    mode, weights = request.param
    return load(features.path, mode=mode, weights=weights, threads=1)


@pytest.fixture(params=WAYS, ids="-".join)
def text_engine(request: pytest.FixtureRequest, texts: HandMade) -> Engine:
    mode, weights = request.param
    return load(texts.path, mode=mode, weights=weights, threads=1)


@pytest.fixture(scope="session")
def server(features: HandMade) -> Iterator[Addresses]:
    """A real server of the features bundle, in its own process; small limits, so that tests can pass them."""
    with running_server(features.path, threads=1, max_body=256 * 1024, max_rows=64) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def text_server(texts: HandMade) -> Iterator[Addresses]:
    with running_server(texts.path, threads=1) as addresses:
        yield addresses

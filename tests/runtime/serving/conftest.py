from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..handmade import HandMade
from .guarded import Guarded, guarded_server
from .watched import Watched, watched_server


@pytest.fixture(scope="session")
def watched(features: HandMade, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server of two workers, which may be asked anything: tests count what they add."""
    with watched_server(features.path, tmp_path_factory.mktemp("watched")) as found:
        yield found


@pytest.fixture(scope="session")
def guarded(features: HandMade, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server with keys; tests that add one take it away again."""
    with guarded_server(features.path, tmp_path_factory.mktemp("keys") / "keys.json") as found:
        yield found

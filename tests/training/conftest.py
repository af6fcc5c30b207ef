from __future__ import annotations

import pytest
from tests.training.runs import config_of

from coterie.training import Run, train


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that nothing interrupted."""
    return train(config_of(), tmp_path_factory.mktemp("whole") / "run")

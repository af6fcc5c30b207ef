"""What holds for all tests: nothing is written into the repository or into anybody's home."""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest

_HOMES: list[str] = []

# Examples that failed are printed; a data base of them would be written beside the sources.
hypothesis.settings.register_profile("coterie", database=None, deadline=None)
hypothesis.settings.load_profile("coterie")


def pytest_configure(config: pytest.Config) -> None:
    """Give libraries that write at import a home that vanishes."""
    home = tempfile.mkdtemp(prefix="coterie-tests-")
    _HOMES.append(home)
    os.environ.update(BENTOML_HOME=f"{home}/bentoml", BENTOML_DO_NOT_TRACK="True", MPLCONFIGDIR=home)


def pytest_unconfigure(config: pytest.Config) -> None:
    while _HOMES:
        shutil.rmtree(_HOMES.pop(), ignore_errors=True)

"""What holds for all tests: one thread, and nothing written into the repository or into anybody's home."""

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
    """Set what libraries read at import; give those that write then a home that vanishes."""
    home = tempfile.mkdtemp(prefix="coterie-tests-")
    _HOMES.append(home)
    # The tests' models are tiny: more threads would only wait for each other, most of all on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.update(BENTOML_HOME=f"{home}/bentoml", BENTOML_DO_NOT_TRACK="True", MPLCONFIGDIR=home)


def pytest_unconfigure(config: pytest.Config) -> None:
    while _HOMES:
        shutil.rmtree(_HOMES.pop(), ignore_errors=True)

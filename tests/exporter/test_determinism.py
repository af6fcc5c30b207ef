"""The same model gives the same bytes, in any process and with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.exporter.conftest import Exported

Get = Callable[[str], Exported]

EXPORT = """
import sys; from pathlib import Path; import torch
torch.set_num_threads(int(sys.argv[2]))
from tests.exporter.conftest import publish; from tests.exporter.models import MODELS
for name in sys.argv[3:]:
    publish(MODELS[name](), Path(sys.argv[1]) / name, name=name)
"""


@pytest.mark.slow
def test_another_process_with_other_hashes_and_threads_writes_the_same_bytes(
    exported: Get, tmp_path: Path
) -> None:
    names = ("features", "lstm")
    threads = torch.get_num_threads() % 2 + 1
    subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path), str(threads), *names],
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
    )
    for name in names:
        bundle = exported(name).folder
        for path in bundle.iterdir():
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes(), path.name

"""The Bento that ``bentofile.yaml`` describes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ("runtime", "exporter", "training", "pyproject.toml", "README.md", "LICENSE", "bentofile.yaml")


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "runtime").is_dir(), reason="the sources are not here, only the wheel")
def test_a_bento_builds_from_the_wheel_and_holds_what_serving_needs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    home = tmp_path / "home"
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    for command in (["build", "--wheel", "--no-isolation"], ["bentoml", "build"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = home.glob("bentos/coterie/*/env/python/wheels/coterie-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {"coterie/runtime/service.py", "coterie/runtime/serving/grpc/inference.binpb"} <= held

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coterie.cli.main import app

TINY = """\
name: tiny
data: {kind: planted, tasks: 6, features: 4, train_rows: 40, dev_rows: 20, test_rows: 20, experts: 3,
  width: 4, clusters: [2], task_kind: classification, outputs: 3, shared_inputs: true}
model:
  stages:
    - {kind: hard, name: trunk, block: {kind: linear, width: 6}}
    - {kind: gated, name: experts, experts: 3, mixture: mean, block: {kind: linear, width: 6}}
    - {kind: cluster, name: groups, clusters: 2, warmup: 1, block: {kind: linear, width: 6}}
trainer: {epochs: 3, threads: 1}
"""

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def coterie() -> Command:
    """Run a command in this process."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        # Wide, so that no table breaks a line that a test looks for.
        runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
        return runner.invoke(app, [str(word) for word in arguments], input=stdin)

    return invoke


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small configuration, its finished run and its bundle. Read only."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def config(tiny: Path) -> Path:
    path = tiny / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run(tiny: Path, config: Path, coterie: Command) -> Path:
    result = coterie("train", config, "--run", tiny / "run", "--quiet")
    assert result.exit_code == 0, result.output
    return tiny / "run"


@pytest.fixture(scope="session")
def bundle(tiny: Path, run: Path, coterie: Command) -> Path:
    result = coterie("export", run, tiny / "bundle")
    assert result.exit_code == 0, result.output
    return tiny / "bundle"

"""``coterie export`` in less than fp32: what is asked for, kept to, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.runtime import parse_manifest

from .conftest import Command


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory, coterie: Command) -> Path:
    """A finished run whose trunk is large enough to be worth storing as int8."""
    folder = tmp_path_factory.mktemp("wide")
    config = folder / "wide.yaml"
    config.write_text(
        """\
name: wide
data: {kind: planted, tasks: 2, features: 16, train_rows: 60, dev_rows: 40, test_rows: 20, experts: 0,
  width: 4, clusters: [2], task_kind: classification, outputs: 2}
model: {stages: [{kind: hard, name: trunk, block: {kind: mlp, widths: [128, 128]}}]}
trainer: {epochs: 2, threads: 1}
""",
        encoding="utf-8",
    )
    result = coterie("train", config, "--run", folder / "run", "--quiet")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_a_bound_is_kept_to_and_shown(wide_run: Path, tmp_path: Path, coterie: Command) -> None:
    bundle = tmp_path / "bundle"
    result = coterie("export", wide_run, bundle, "--precision", "int8", "--max-metric-drop", "10")
    assert result.exit_code == 0, result.output
    report = parse_manifest((bundle / "manifest.json").read_bytes()).precision
    assert report is not None
    assert (report.asked, report.max_metric_drop) == ("int8", 10.0)
    assert report.blocks["trunk/0"] == "int8"
    assert set(report.drops) == {"task_0", "task_1"}
    assert max(report.drops.values()) <= 10
    assert "int8" in coterie("inspect", bundle).output


def test_what_a_bundle_holds_is_not_decided_later(bundle: Path, coterie: Command) -> None:
    result = coterie("export", bundle, "--standalone", "task_0", "--precision", "int8")
    assert result.exit_code == 2
    assert "give the run" in result.stderr


def test_a_bound_without_a_precision_is_refused(wide_run: Path, tmp_path: Path, coterie: Command) -> None:
    result = coterie("export", wide_run, tmp_path / "bundle", "--max-metric-drop", "1")
    assert result.exit_code == 2
    assert "give a precision" in result.stderr
    assert not (tmp_path / "bundle").exists()

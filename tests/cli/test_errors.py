"""A mistake is told in words, with exit code 2, and says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Command


def told(coterie: Command, *arguments: object) -> str:
    result = coterie(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not isinstance(result.exception, AssertionError)
    return result.stderr


def test_the_installed_command_ends_with_2_and_no_stack_trace() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coterie.cli", "inspect", "nowhere"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: there is no folder nowhere: check the path\n"
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["inspect"], ["export"], ["serve"], ["predict", "--text", "x"]])
def test_a_folder_that_is_not_there(coterie: Command, tmp_path: Path, command: list[str]) -> None:
    assert "there is no folder" in told(coterie, *command, tmp_path / "absent")


@pytest.mark.parametrize("command", [["inspect"], ["export"], ["serve"], ["predict", "--text", "x"]])
def test_a_folder_of_something_else(coterie: Command, tmp_path: Path, command: list[str]) -> None:
    assert "neither a run nor a bundle" in told(coterie, *command, tmp_path)


@pytest.mark.parametrize("command", [["serve"], ["predict", "--text", "x"]])
def test_a_run_where_a_bundle_is_needed(coterie: Command, run: Path, command: list[str]) -> None:
    assert "run coterie export" in told(coterie, *command, run)


@pytest.mark.parametrize("command", [["inspect"], ["export"]])
def test_a_run_that_has_not_ended(coterie: Command, run: Path, tmp_path: Path, command: list[str]) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert "it resumes" in told(coterie, *command, tmp_path / "run")


def test_a_bundle_where_a_run_is_needed(coterie: Command, bundle: Path) -> None:
    assert "is a bundle already" in told(coterie, "export", bundle)


def test_an_export_onto_a_bundle_names_the_option(coterie: Command, run: Path, bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    assert "--overwrite" in told(coterie, "export", run, bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_an_export_onto_a_foreign_folder(coterie: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    assert "not overwritten" in told(coterie, "export", run, tmp_path, "--overwrite")
    assert (tmp_path / "letter.txt").exists()


def test_options_that_do_not_go_together(coterie: Command, run: Path, bundle: Path) -> None:
    assert "--standalone" in told(coterie, "export", run, "--output", "x.onnx")
    assert "--output" in told(coterie, "export", run, "folder", "--standalone", "task_00")
    assert "--input" in told(coterie, "predict", bundle)


def test_a_standalone_of_an_unknown_task(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    said = told(coterie, "export", bundle, "--standalone", "nobody", "-o", tmp_path / "x.onnx")
    assert "'nobody'" in said
    assert not (tmp_path / "x.onnx").exists()


def test_a_damaged_run(coterie: Command, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_text('{"tasks": []}', encoding="utf-8")
    assert "is damaged" in told(coterie, "inspect", tmp_path / "run")


def test_a_damaged_bundle(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "router.onnx").write_bytes(b"")
    assert "'router.onnx' is truncated" in told(coterie, "inspect", tmp_path / "bundle")


def test_serve_says_which_setting_is_wrong(coterie: Command, bundle: Path) -> None:
    assert "--threads" in told(coterie, "serve", bundle, "--threads", "0")
    assert "--http-port" in told(coterie, "serve", bundle, "--http-port", "70000")


def test_the_demo_leaves_other_peoples_files_alone(coterie: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").touch()
    assert "no demo made" in told(coterie, "demo", "--out", tmp_path)
    assert (tmp_path / "runs" / "mine").exists()


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys\nsys.modules['torch'] = None\nfrom coterie.cli.main import run\nrun(['train', 'digits'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'coterie[train]'" in done.stderr

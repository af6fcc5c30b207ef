"""A mistake is told in words, with exit code 2, and says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coterie import exporter
from coterie.cli._bench import _measure
from coterie.runtime.durable import write_file

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


@pytest.mark.parametrize("file", ["data.json", "metrics.json"])
@pytest.mark.parametrize("content", ["truncated", "[]", '{"dev": {"task_0": [1]}}'])
@pytest.mark.parametrize("command", [["inspect"], ["export"], ["export", "--standalone", "task_0"]])
def test_a_run_with_a_damaged_file(  # noqa: PLR0917 - pytest passes them by name
    coterie: Command, run: Path, tmp_path: Path, file: str, content: str, command: list[str]
) -> None:
    damaged = shutil.copytree(run, tmp_path / "run") / file
    if content == "truncated":
        damaged.write_bytes(damaged.read_bytes()[:-40])
    else:
        damaged.write_text(content, encoding="utf-8")
    said = told(coterie, command[0], tmp_path / "run", *command[1:])
    assert f"error: the run in {tmp_path / 'run'} is damaged" in said
    assert said.endswith(": train it again\n")


def test_a_damaged_bundle(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "router.onnx").write_bytes(b"")
    assert "'router.onnx' is truncated" in told(coterie, "inspect", tmp_path / "bundle")


def _in_the_way(coterie: Command, monkeypatch: pytest.MonkeyPatch, *command: object) -> str:
    """What a command says to a path on which something else lies, before it does any work."""
    monkeypatch.setattr(_measure, "measure", _never)
    monkeypatch.setattr(exporter, "export_run", _never)
    said = told(coterie, *command)
    assert said.count("\n") == 1
    return said


def _never(*_: object, **__: object) -> None:
    raise AssertionError("this was to be refused first")


@pytest.mark.parametrize(
    "command",
    [
        ["export", "{run}", "{path}"],
        ["export", "{run}", "--standalone", "task_0", "-o", "{path}"],
        ["export", "{bundle}", "--standalone", "task_0", "-o", "{path}"],
        ["export", "{bundle}", "--triton", "{path}"],
        ["bench", "{bundle}", "--quick", "--no-server", "--json", "{path}"],
        ["bench", "{bundle}", "--quick", "--no-server", "--html", "{path}"],
        ["keygen", "{path}"],
        ["train", "{config}", "--run", "{path}"],
    ],
)
@pytest.mark.parametrize("below", ["x", "x/y"])
def test_a_path_below_a_file(  # noqa: PLR0917 - pytest passes them by name
    coterie: Command,
    run: Path,
    bundle: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    below: str,
) -> None:
    (tmp_path / "in.csv").write_text("1,2", encoding="utf-8")
    path = tmp_path / "in.csv" / below
    words = [word.format(run=run, bundle=bundle, config=config, path=path) for word in command]
    said = _in_the_way(coterie, monkeypatch, *words)
    if command[0] == "train":
        assert said == f"error: {tmp_path / 'in.csv'} is a file, not a folder: give another run folder\n"
    else:
        ending = ".pem" if command[0] == "keygen" else ""
        assert said.startswith(f"error: {path}{ending}: Not a directory: a part of the path is a file")
    assert (tmp_path / "in.csv").read_text(encoding="utf-8") == "1,2"


@pytest.mark.parametrize(
    "command",
    [
        ["export", "{run}", "--standalone", "task_0", "-o", "{path}"],
        ["export", "{bundle}", "--standalone", "task_0", "-o", "{path}"],
        ["bench", "{bundle}", "--quick", "--no-server", "--json", "{path}"],
    ],
)
def test_a_folder_where_a_file_is_to_be_written(  # noqa: PLR0917 - pytest passes them by name
    coterie: Command,
    run: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    words = [word.format(run=run, bundle=bundle, path=tmp_path) for word in command]
    said = _in_the_way(coterie, monkeypatch, *words)
    assert said == f"error: {tmp_path}: Is a directory: give a file's path\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_is_a_file(coterie: Command, config: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2", encoding="utf-8")
    assert "t.csv is a file, not a folder" in told(coterie, "train", config, "--run", tmp_path / "t.csv")


def test_a_folder_that_nobody_may_write_in(
    coterie: Command, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Path, mode: int) -> bool:  # root may write anywhere
        return mode != os.W_OK

    monkeypatch.setattr("os.access", access)
    said = _in_the_way(coterie, monkeypatch, "bench", bundle, "--quick", "--json", tmp_path / "x.json")
    assert said.startswith(f"error: {tmp_path / 'x.json'}: Permission denied: check its permissions")


def test_a_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        write_file(tmp_path / "there", b"x")
    with pytest.raises(FileNotFoundError) as parent:
        write_file(tmp_path / "absent" / "x", b"x")
    assert (folder.value.filename, folder.value.filename2) == (str(tmp_path / "there"), None)
    assert parent.value.filename == str(tmp_path / "absent" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_fault_that_is_of_no_file_is_not_hidden(
    coterie: Command, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("coterie.cli._summary.summarise", closed)
    assert "error:" not in coterie("inspect", bundle).output


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

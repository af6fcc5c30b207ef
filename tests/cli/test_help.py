"""Help that needs no manual, quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Command

COMMANDS = ["train", "presets", "export", "inspect", "predict", "serve", "top", "demo"]
HEAVY = {"torch", "onnx", "bentoml", "sklearn", "matplotlib", "grpc"}


def imported(*arguments: str) -> set[str]:
    """Return the packages that a command imports, in a process of its own."""
    script = (
        "import sys\nfrom coterie.cli.main import run\n"
        "try:\n    run(sys.argv[1:])\n"
        "finally:\n    print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_lists_every_command_and_the_usual_way(coterie: Command) -> None:
    output = coterie("--help").output
    for command in COMMANDS:
        assert f" {command} " in output
    assert (
        output.index("$ coterie train") < output.index("$ coterie export") < output.index("$ coterie serve")
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples_that_it_would_take(coterie: Command, command: str) -> None:
    output = coterie(command, "--help").output
    assert f"$ coterie {command}" in output
    assert "--help" in output


@pytest.mark.parametrize("command", ["train", "export", "inspect", "predict", "serve"])
def test_a_command_without_arguments_shows_its_help(coterie: Command, command: str) -> None:
    result = coterie(command)
    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "$ coterie" in result.output


def test_help_imports_no_heavy_package() -> None:
    packages = imported("--help")
    assert not packages & (HEAVY | {"onnxruntime", "numpy"})
    assert "typer" in packages


@pytest.mark.parametrize("command", ["train", "export", "serve", "predict", "demo"])
def test_a_commands_help_imports_no_heavy_package(command: str) -> None:
    assert not imported(command, "--help") & HEAVY


def test_the_version_is_the_distributions(coterie: Command) -> None:
    from importlib.metadata import version

    assert coterie("--version").output.strip() == version("coterie")


def test_the_presets_are_listed_with_what_they_train(coterie: Command) -> None:
    output = coterie("presets").output
    for name in ("digits", "digits-hard", "digits-single", "text"):
        assert name in output
    assert "hard sharing" in output

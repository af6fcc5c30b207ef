"""Servers and clients of others, each in an environment of its own, made when it is first needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME_VARIABLE = "COTERIE_PEERS"
"""Environment variable that names another folder to keep environments in."""
HOME = Path(os.environ.get(HOME_VARIABLE) or HERE.parent.parent / "build" / "peers")
INSTALL_SECONDS = 600


def requirements(name: str) -> list[str]:
    """Return what a peer needs, with versions."""
    lines = (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def environment(name: str, home: Path = HOME) -> Path | str:
    """Return the folder of programs of a peer's environment, or why there is none.

    Args:
        name: Of the peer; ``NAME.txt`` beside this file lists what it needs.
        home: Where environments are kept.
    """
    programs = home / name / "bin"
    ready = home / f"{name}.ready"
    wanted = "\n".join(requirements(name))
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return programs
    for command in (
        [sys.executable, "-m", "venv", str(home / name)],
        [str(programs / "python"), "-m", "pip", "install", "--quiet", "-r", str(HERE / f"{name}.txt")],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"{name} was not installed within {INSTALL_SECONDS} seconds"
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"{name} cannot be installed here: {errors[-1][:200] if errors else done.returncode}"
    ready.write_text(wanted, encoding="utf-8")
    return programs

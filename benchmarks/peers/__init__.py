"""Servers and clients of others, each in an environment of its own, made when it is first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parent.parent / "build" / "peers"


def environment(name: str, home: Path = HOME) -> Path | str:
    """Return the folder of programs of a peer's environment, or why there is none.

    Args:
        name: Of the peer; ``NAME.txt`` beside this file lists what it needs.
        home: Where environments are kept.
    """
    programs = home / name / "bin"
    ready = home / f"{name}.ready"
    if ready.is_file():
        return programs
    requirements = HERE / f"{name}.txt"
    for command in (
        [sys.executable, "-m", "venv", str(home / name)],
        [str(programs / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"{name} cannot be installed here: {errors[-1][:200] if errors else done.returncode}"
    ready.touch()
    return programs

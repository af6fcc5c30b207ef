"""Run code as it runs where only coterie's base dependencies are installed.

What an extra brings is not found there, in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement

_HIDE = """
import json, sys
from importlib.machinery import PathFinder

hidden, find = set(json.loads(sys.argv.pop(1))), PathFinder.find_spec

def find_spec(name, path=None, target=None):
    absent = name in hidden or name.partition(".")[0] in hidden
    return None if absent else find(name, path, target)

PathFinder.find_spec = find_spec
"""
_COMMAND = "from coterie.cli.main import run; sys.argv[0] = 'coterie'; run()"


def base_distributions() -> set[str]:
    """Return what ``pip install coterie`` installs, by normal names."""
    waiting, found = ["coterie"], set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        waiting += [each.name for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


@cache
def hidden_modules() -> frozenset[str]:
    """Return the top-level modules that only extras bring."""
    base = base_distributions()
    hidden = {"google.protobuf"}
    for module, owners in packages_distributions().items():
        if module != "google" and not base & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}:
            hidden.add(module)
    return frozenset(hidden)


def run_bare(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code; ``sys.argv[1:]`` are the arguments."""
    return subprocess.run(
        [sys.executable, "-c", _HIDE + code, json.dumps(sorted(hidden_modules())), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def coterie_bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``coterie``."""
    return run_bare(_COMMAND, *arguments)

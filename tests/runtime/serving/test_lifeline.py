"""A process that was told with whom to end does so, also where that one has gone before it could look."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from coterie.runtime.serving._lifeline import PARENT

PROGRAM = """
import time
from coterie.runtime.serving._lifeline import end_with_parent
end_with_parent()
print("goes on", flush=True)
time.sleep({seconds})
"""


def ended(said: str, seconds: float) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds)], env={**os.environ, PARENT: said}
    )
    return process.wait(timeout=20)


def test_whose_parent_has_gone_before_it_looks_ends_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert ended(str(gone.pid), 10) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what has become of a process")
def test_a_parent_that_nobody_has_asked_for_has_gone_too() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert ended(str(zombie.pid), 10) == -signal.SIGTERM
    zombie.wait()


def test_others_go_on() -> None:
    for said in ("", str(os.getpid()), str(os.getppid())):
        assert ended(said, 0.1) == 0

"""What is changed for a whole process, which only a server's own is."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc
import os
import sys
import threading

from coterie.runtime._process import TELLING, UNASKED, own_process, step_back

if sys.argv[1] == "own":
    own_process()
found = []


def engine():
    for back in ((), (TELLING,), (UNASKED,)):
        step_back(*back)
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))


thread = threading.Thread(target=engine)
before = os.getpriority(os.PRIO_PROCESS, 0)
thread.start()
thread.join()
stepped = before < found[0] < found[1] < found[2]
print(stepped, os.getpriority(os.PRIO_PROCESS, 0) == before, gc.get_freeze_count() > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no niceness of their own")
@pytest.mark.parametrize(("whose", "told"), [("own", "True True True"), ("embedded", "False True False")])
def test_engine_threads_step_back_and_modules_are_no_garbage_in_a_process_of_its_own(
    whose: str, told: str
) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, whose], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told

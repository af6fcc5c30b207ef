"""How a process of coterie's own is set up: one arena, threads that do not spin, few searches for garbage."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading

import onnxruntime as ort

_SAME_AS_REQUESTED = 1
"""The arena grows by what is asked for, and not by the next power of two."""

RUNS, TELLING, UNASKED = 5, 10, 19
"""Niceness of threads that run the engine, that tell what was counted, and that make what nobody waits for.

Of a core that the thread which reads and writes wants too the first have about a quarter: enough that
overload ends in answers."""

_COLLECTED = 2_000
"""Objects after which Python looks for garbage among the newest: a millisecond in which nobody is read."""

_lock = threading.Lock()
_owned = False


def own_process() -> None:
    """Let all sessions that are made from now on share one arena, and their threads sleep between runs.

    For a program that is nothing but a server: it changes ONNX Runtime and Python for the whole process, so
    neither an import nor an engine ever does it by itself. Only the first call counts.
    """
    global _owned  # noqa: PLW0603 - ONNX Runtime has one environment for each process, and so is this
    with _lock:
        if _owned:
            return
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(
            memory, ort.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
        )
        # To search all that was imported for garbage takes a tenth of a second, in which nobody is answered.
        gc.freeze()
        gc.set_threshold(_COLLECTED)
        _owned = True


def share(options: ort.SessionOptions) -> bool:
    """Set a session up for a process of coterie's own; return whether this is one."""
    if _owned:
        options.add_session_config_entry("session.use_env_allocators", "1")
        # An arena keeps what it once had: the weights of a version that is unloaded would stay.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        # A thread that waits for the next run by spinning takes the core from whoever reads the next request.
        # ONNX Runtime's global pool always spins, in Python, so that sessions keep pools: the router's one,
        # those of single tasks none.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _owned


def step_back(niceness: int = RUNS) -> None:
    """Let the calling thread come after the others of a process of coterie's own, where cores are few.

    What arrives during a run of the engine is then read before the run goes on, and meets in the next one;
    else the run takes half of the core from whoever reads, and the next is small.
    """
    if _owned and sys.platform == "linux":  # the only system where a thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def is_own() -> bool:
    """Return whether this is a process of coterie's own."""
    return _owned


def on_one_core() -> bool:
    """Return whether all of this process shares one core, as far as the system tells."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1


def give_back_memory() -> None:
    """Return memory that nobody uses any more to the system; without being asked, the C library keeps it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim is not None:
            trim(0)

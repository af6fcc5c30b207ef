"""What ONNX Runtime's sessions share when the process is coterie's own: one pool of threads, one arena."""

from __future__ import annotations

import threading

import onnxruntime as ort

_SAME_AS_REQUESTED = 1
"""The arena grows by what is asked for, and not by the next power of two."""

_lock = threading.Lock()
_owned = False


def own_process(threads: int | None = None) -> None:
    """Let all sessions that are made from now on share one pool of threads and one arena.

    For a program that is nothing but a server: it changes ONNX Runtime for the whole process, so neither an
    import nor an engine ever does it by itself. Only the first call counts.

    Args:
        threads: Threads of the pool; by default one a core.
    """
    global _owned  # noqa: PLW0603 - ONNX Runtime has one environment for each process, and so is this
    with _lock:
        if _owned:
            return
        ort.set_global_thread_pool_sizes(threads or 0, 1)
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(
            memory, ort.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
        )
        _owned = True


def share(options: ort.SessionOptions) -> bool:
    """Let a session use what the process shares; return whether there is such a thing."""
    if _owned:
        options.use_per_session_threads = False
        options.add_session_config_entry("session.use_env_allocators", "1")
    return _owned

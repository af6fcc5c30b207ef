"""A server as the first process of a namespace of processes, which is what it is in a container."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

import httpx
import psutil
import pytest

from ..handmade import HandMade
from .ports import free_port

WAYS = (["-pf"], ["-Urpf"])
"""As root, and as anybody where namespaces of users are allowed."""


@cache
def _alone() -> list[str]:
    """Return what runs a command as process 1, or nothing where that is not allowed."""
    for way in WAYS if shutil.which("unshare") else ():
        command = ["unshare", *way, "--mount-proc", "--kill-child", "--"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not _alone(), reason="needs unshare, and to be let"
)
def test_as_process_1_a_killed_worker_is_replaced_and_sigterm_stops_all(features: HandMade) -> None:
    http, grpc = free_port(), free_port()
    ports = ["--http-port", str(http), "--grpc-port", str(grpc)]
    serve = [sys.executable, "-m", "coterie.cli", "serve", str(features.path), "--threads", "1", *ports]
    process = subprocess.Popen([*_alone(), *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _is_ready(http), 60)
        first = psutil.Process(process.pid).children()[0]  # 1 where it is, and another number here
        (killed,) = _workers(first)
        killed.send_signal(signal.SIGKILL)
        _until(lambda: bool(set(_workers(first)) - {killed}) and _is_ready(http), 30)
        first.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _workers(first: psutil.Process) -> list[psutil.Process]:
    return [each for each in first.children(recursive=True) if "--worker-id" in _command(each)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it ends just now
        return []


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)

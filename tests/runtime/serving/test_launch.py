"""Starting and stopping real servers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from coterie.runtime import BundleError, ConfigError, CoterieError, IntegrityError
from coterie.runtime.manifest import WEIGHTS
from coterie.runtime.serving import Addresses, running_server, serve

from ..handmade import HandMade
from .ports import free_port

SERVE = """
import sys
from coterie.runtime.serving import serve

sys.exit(serve(sys.argv[1], http_port=int(sys.argv[2]), grpc_port=int(sys.argv[3]), threads=1))
"""


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_serve_stops_the_whole_server_cleanly(features: HandMade, number: int) -> None:
    ports = [str(free_port()), str(free_port())]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(features.path), *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not all(map(_listens, addresses)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with httpx.Client(base_url=f"http://{addresses[0]}") as kept_alive:
            while kept_alive.get("/v2/health/ready").status_code != 200:
                time.sleep(0.1)
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert not any(map(_listens, addresses))
    assert "Traceback" not in output


@pytest.mark.skipif(sys.platform == "win32", reason="there, a process's parent stays the same")
@pytest.mark.parametrize("killed", ["who serves", "who looks after the workers"])
def test_nothing_is_left_of_a_server_whose_parent_is_killed(features: HandMade, killed: str) -> None:
    ports = [free_port(), free_port()]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(features.path), *map(str, ports)], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not all(_listens(f"127.0.0.1:{port}") for port in ports):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = psutil.Process(process.pid).children(recursive=True)
        (process if killed == "who serves" else started[0]).kill()
        gone, left = psutil.wait_procs(started, timeout=20)
        assert (len(gone), left) == (len(started), [])
        assert len(started) >= 2
        assert not any(_listens(f"127.0.0.1:{port}") for port in ports)
        assert process.wait(10) != 0
    finally:
        process.kill()
        process.wait()


def test_a_running_server_stops_when_the_block_is_left_by_an_error(features: HandMade) -> None:
    with contextlib.suppress(KeyError), running_server(features.path, threads=1, grpc=False) as addresses:
        assert addresses.grpc is None
        assert _listens(addresses.http)
        raise KeyError
    assert not _listens(addresses.http)
    with pytest.raises(ProcessLookupError):
        os.kill(addresses.pid, 0)


def test_two_workers_share_both_ports(features: HandMade) -> None:
    with running_server(features.path, threads=1, workers=2) as addresses:
        for _ in range(5):
            response = httpx.post(
                f"http://{addresses.http}/predict", json={"task": "topic", "inputs": [[1.0, 2.0, 3.0, 4.0]]}
            )
            assert response.status_code == 200
        # Summed over the workers, who tell each other now and then.
        deadline = time.monotonic() + 10
        while _answered(addresses) != 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _answered(addresses: Addresses) -> float:
    metrics = httpx.get(f"http://{addresses.http}/metrics").text
    found = re.search(r'coterie_requests_total\{model="topic",outcome="ok",transport="json"\} (\S+)', metrics)
    return float(found[1]) if found else 0.0


def test_a_broken_bundle_is_refused_before_a_server_is_started(features: HandMade, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(features.path, tmp_path / "bundle"))
    (broken / WEIGHTS).write_bytes(b"short")
    for start in (serve, lambda path: running_server(path).__enter__()):
        with pytest.raises(IntegrityError, match="truncated"):
            start(broken)
        with pytest.raises(BundleError):
            start(tmp_path / "nowhere")


def test_a_port_in_use_and_a_wrong_setting_are_refused(features: HandMade) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port} is in use"):
            serve(features.path, http_port=port, grpc_port=0)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.7 is no address of this machine"):
        serve(features.path, host="192.0.2.7", http_port=free_port(), grpc_port=0)
    port = free_port()
    with pytest.raises(ConfigError, match=f"grpc_port: {port} is HTTP's already"):
        serve(features.path, http_port=port, grpc_port=port)
    with pytest.raises(ConfigError, match="COTERIE_WORKERS"):
        serve(features.path, workers=0)
    with pytest.raises(ConfigError, match="'topik' is no task"):
        serve(features.path, task_weights={"topik": 2.0})
    with pytest.raises(ConfigError, match="max_bodies"), running_server(features.path, max_bodies=3):
        pass


def test_a_server_that_ends_early_says_why(features: HandMade) -> None:
    with (
        pytest.raises(CoterieError, match=r"the server (ended|was not ready)"),
        running_server(features.path, threads=1, startup_seconds=0.1),
    ):
        pass


def test_bentoml_alone_refuses_to_start_without_a_bundle(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bentoml", "serve", "coterie.runtime.service:CoterieService"),
            *("--port", str(free_port()), "--host", "127.0.0.1"),
        ],
        env=environment | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "COTERIE_BUNDLE" in done.stdout + done.stderr


def test_serve_takes_the_rest_of_its_settings_from_the_environment(
    features: HandMade, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with (
        log.open("wb") as told,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "coterie.cli", "serve", str(features.path)),
                *("--http-port", str(port), "--grpc-port", "0", "--threads", "1", "--host", "0.0.0.0"),  # noqa: S104
            ],
            env=os.environ | {"COTERIE_MAX_BODY": "100"},
            cwd=tmp_path,
            stderr=told,
        ) as server,
    ):
        try:
            wait_until_ready(address)
            assert httpx.post(f"{address}/ask", json={"inputs": [[0.0] * 100]}).status_code == 413
        finally:
            server.terminate()
    assert server.returncode == 0
    assert "listening on 0.0.0.0 without keys and TLS" in log.read_text(encoding="utf-8")


def wait_until_ready(address: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("the server is not ready after a minute")


def test_a_device_that_is_not_there_is_refused_before_anything_starts(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COTERIE_DEVICE", "cuda")
    with pytest.raises(ConfigError, match=r"CUDAExecutionProvider.*install coterie\[gpu\]"):
        serve(features.path)

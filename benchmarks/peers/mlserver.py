"""Starts MLServer over the task graphs of a bundle, each an ONNX file of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import HERE
from benchmarks.peers.starting import started
from coterie.runtime import Bundle
from coterie.runtime.serving import Addresses
from coterie.runtime.serving._ports import free_ports


@dataclass(frozen=True)
class Tuning:
    """How MLServer is told to run."""

    parallel_workers: int = 0
    """Processes that answer beside the one that listens; 0 answers in that one."""
    batch_rows: int = 0
    """Most requests to one model that adaptive batching puts together; 0 is no batching."""
    batch_seconds: float = 0.0
    """How long a batch waits for more requests."""


@contextmanager
def running_mlserver(
    programs: Path, bundle: Bundle, folder: Path, tuning: Tuning | None = None
) -> Iterator[Addresses]:
    """Run MLServer on free ports of this machine while the ``with`` block lasts.

    Args:
        programs: Of its environment.
        bundle: Whose task graphs it serves.
        folder: An empty one, for its settings and its log.
        tuning: How it is told to run; without access log and compression in any case.

    Raises:
        NotStartedError: If it ends or is not ready in time.
    """
    tuning = tuning or Tuning()
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports("127.0.0.1", 3), strict=True))
    settings = {
        "host": "127.0.0.1",
        "debug": False,
        "gzip_enabled": False,
        "parallel_workers": tuning.parallel_workers,
        **ports,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "mlserver_onnx.py").write_bytes((HERE / "mlserver_onnx.py").read_bytes())
    for entry in bundle.manifest.tasks:
        own = folder / entry.task.name
        own.mkdir()
        model = {
            "name": entry.task.name,
            "implementation": "mlserver_onnx.OnnxModel",
            "parameters": {"uri": str(bundle.graph(entry.graph)), "version": "1"},
            "max_batch_size": tuning.batch_rows,
            "max_batch_time": tuning.batch_seconds,
        }
        (own / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    command = [str(programs / "mlserver"), "start", str(folder)]
    http, grpc = f"127.0.0.1:{ports['http_port']}", f"127.0.0.1:{ports['grpc_port']}"
    with started(command, folder, f"http://{http}/v2/health/ready") as pid:
        yield Addresses(http, grpc, pid)

"""The router's share of the machine's ceiling by batch size, and where the rest goes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.export.planted import planted_inputs
from benchmarks.limits.ceilings import best, gemm
from benchmarks.limits.work import block_bytes, flop
from coterie.runtime import Bundle

BATCHES = (1, 4, 16, 64, 256, 1024)
_PROFILED = 30
_SUBGRAPHS = ("If", "Loop", "Scan")
"""Their time is that of the nodes inside, which are in the profile too."""


def share_by_batch(bundle: Bundle, width: int, bandwidth: float, folder: Path) -> list[dict[str, Any]]:
    """Return for each batch size how much of the machine's ceiling the router reaches.

    The ceiling is one large product of that many rows. With few rows the weights are what takes time: how
    long memory takes to give those that are used is there as well. A cache may hold them and be faster.
    """
    session = _session(bundle)
    rows = []
    for count in BATCHES:
        task = np.random.default_rng(0).permutation(np.arange(count) % len(bundle.tasks))
        feeds = _feeds(count, task)
        seconds = best(lambda feeds=feeds: session.run(None, feeds))
        needed, ceiling = flop(bundle, task), gemm(count, width, folder)
        reading = block_bytes(bundle, task) / bandwidth
        rows.append(
            {
                "rows": count,
                "ms": round(1000 * seconds, 4),
                "gflop": round(needed / 1e9, 4),
                "gflop_per_second": round(needed / seconds / 1e9, 1),
                "gemm_gflop_per_second": round(ceiling / 1e9, 1),
                "share_of_gemm": round(needed / seconds / ceiling, 3),
                "reading_ms": round(1000 * reading, 4),
                "operators": operators(bundle, feeds, folder),
            }
        )
    return rows


def operators(bundle: Bundle, feeds: dict[str, npt.NDArray[Any]], folder: Path) -> dict[str, float]:
    """Return the share of each operator in the time that all kernels take, the largest first."""
    session = _session(bundle, folder / "profile")
    for _ in range(_PROFILED):
        session.run(None, feeds)
    file = Path(session.end_profiling())
    spent: Counter[str] = Counter()
    for event in json.loads(file.read_text(encoding="utf-8")):
        kind = event.get("args", {}).get("op_name")
        if kind and event["name"].endswith("_kernel_time") and kind not in _SUBGRAPHS:
            spent[kind] += event["dur"]
    file.unlink()
    total = sum(spent.values()) or 1
    return {kind: round(time / total, 3) for kind, time in spent.most_common(8)}


def _feeds(count: int, task: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    return {"inputs": planted_inputs(count), "row": np.arange(count), "task": task}


def _session(bundle: Bundle, profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    file = bundle.graph(bundle.manifest.router)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

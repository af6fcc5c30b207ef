"""Makes ONNX Runtime sessions of a bundle's graphs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import onnxruntime as ort

from coterie.runtime._bundle import Bundle
from coterie.runtime._graph import Graph, check_contract
from coterie.runtime._process import share
from coterie.runtime.errors import BundleError, ConfigError

Weights = Literal["fast", "shared"]

_FATAL_ONLY = 4
_SESSION_BYTES = 256 * 1024
"""What a session takes beside its weights: 1,000 of them take 230 MB more than their weights."""
_NUMBER_BYTES = 4
"""A session computes in fp32, whatever its weights are stored in."""


class Sessions:
    """Makes the sessions of one bundle.

    Args:
        bundle: The bundle.
        weights: ``fast``: each session packs the weights it uses into a form of its own. ``shared``: sessions
            and processes read them where they are mapped from the one file.
        providers: ONNX Runtime's execution providers, in order of preference.
        threads: Threads that a run of the router may use; by default one a core.
        task_threads: Threads that a run of a single task's session may use; each session has its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        weights: Weights,
        providers: Sequence[str],
        threads: int | None,
        task_threads: int = 1,
    ) -> None:
        self._bundle = bundle
        self._weights = weights
        self._providers = list(providers)
        self._threads = threads or 0
        self._task_threads = task_threads
        self._router: Graph | None = None
        self._lock = threading.Lock()
        self._inputs: dict[str, str] = {spec.name: spec.dtype for spec in bundle.manifest.inputs}

    def router(self) -> Graph:
        """Return the router graph: one session for all tasks, that holds every weight once."""
        with self._lock:
            if self._router is None:
                wanted = {**self._inputs, "row": "int64", "task": "int64"}
                self._router = self._make(self._bundle.manifest.router, wanted, threads=self._threads)
            return self._router

    def make_task(self, index: int) -> Graph:
        """Return a new session of one task's graph."""
        return self._make(
            self._bundle.manifest.tasks[index].graph,
            self._inputs,
            threads=self._task_threads,
            # Speed is the same without an arena, and none of many sessions keeps what its largest run took.
            arena=False,
        )

    def task_bytes(self, index: int) -> int:
        """Return about what a session of a task takes in memory that nothing else uses."""
        mapped = self._weights == "shared" and self._bundle.manifest.precision is None
        weights = 0 if mapped else self._bundle.manifest.plan.parameters_of(index)
        return _SESSION_BYTES + _NUMBER_BYTES * weights

    def _make(self, name: str, inputs: dict[str, str], *, threads: int, arena: bool = True) -> Graph:
        file = self._bundle.graph(name)
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = share(options) or arena
        if self._weights == "shared":
            # A packed copy for each session would undo the sharing, and so would the NCHWc rewrite.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            session = ort.InferenceSession(str(file), options, providers=self._providers, enable_fallback=0)
        except Exception as error:
            # The text of ONNX Runtime's error carries absolute paths; it stays in the cause, for the log.
            raise BundleError(
                f"graph {name!r} cannot be loaded by ONNX Runtime {ort.__version__} "
                f"({type(error).__name__}): export the bundle again, or upgrade onnxruntime"
            ) from error
        session.disable_fallback()
        absent = [provider for provider in self._providers if provider not in session.get_providers()]
        if absent:
            raise ConfigError("ONNX Runtime did not start every provider that was asked for", absent)
        check_contract(session, name, inputs)
        return Graph(session, name, bound=self._providers != ["CPUExecutionProvider"])


def provider_problems(providers: Sequence[str]) -> list[str]:
    """Return what is wrong with the providers that are asked for: none given, or one that is not there."""
    available = ort.get_available_providers()
    problems = [
        f"providers: {provider!r} is not in this ONNX Runtime, which has {', '.join(available)}"
        + ("; install coterie[gpu]" if provider.startswith(("CUDA", "Tensorrt")) else "")
        for provider in providers
        if provider not in available
    ]
    if not providers:
        problems.append("providers: give at least one, such as 'CPUExecutionProvider'")
    return problems

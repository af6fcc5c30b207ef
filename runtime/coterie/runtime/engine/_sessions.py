"""Makes ONNX Runtime sessions of a bundle's graphs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import onnxruntime as ort

from coterie.runtime._process import share
from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._devices import CPU, check_started, on_device, with_options
from coterie.runtime.engine._divided import DividedRouter
from coterie.runtime.engine._graph import Graph, check_contract
from coterie.runtime.errors import BundleError
from coterie.runtime.manifest import RouterParts

Weights = Literal["fast", "shared"]

_FATAL_ONLY = 4
_SESSION_BYTES = 256 * 1024
"""What a session takes beside its weights: 1,000 of them take 230 MB more than their weights."""
_QUESTIONS = {"row": "int64", "task": "int64"}
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
        self._router: Graph | DividedRouter | None = None
        self._lock = threading.Lock()
        self._inputs: dict[str, str] = {spec.name: spec.dtype for spec in bundle.manifest.inputs}

    def router(self) -> Graph | DividedRouter:
        """Return the router graph: one session for all tasks, that holds every weight once.

        On a device, a second one beside it computes the dispatch on the CPU, where the bundle has that.
        """
        with self._lock:
            if self._router is None:
                manifest = self._bundle.manifest
                if on_device(self._providers) and manifest.router_parts is not None:
                    self._router = self._make_divided(manifest.router_parts)
                else:
                    wanted = {**self._inputs, **_QUESTIONS}
                    self._router = self._make(manifest.router, wanted, threads=self._threads)
            return self._router

    def _make_divided(self, parts: RouterParts) -> DividedRouter:
        host = self._make(parts.host, {"count": "int64", **_QUESTIONS}, dispatch=True, threads=1)
        wanted = {**host.gives, **self._inputs, **_QUESTIONS}
        device = self._make(parts.device, wanted, threads=self._threads)
        return DividedRouter(host, device, tuple(self._inputs))

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

    def _make(
        self,
        name: str,
        inputs: dict[str, str],
        *,
        threads: int,
        arena: bool = True,
        dispatch: bool = False,
    ) -> Graph:
        providers = [CPU] if dispatch else self._providers
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
            session = ort.InferenceSession(
                str(file), options, providers=with_options(providers), enable_fallback=0
            )
        except Exception as error:
            # The text of ONNX Runtime's error carries absolute paths; it stays in the cause, for the log.
            raise BundleError(
                f"graph {name!r} cannot be loaded by ONNX Runtime {ort.__version__} "
                f"({type(error).__name__}): export the bundle again, or upgrade onnxruntime"
            ) from error
        session.disable_fallback()
        check_started(session, providers)
        check_contract(session, name, inputs, dispatch=dispatch)
        return Graph(session, name, bound=on_device(providers))

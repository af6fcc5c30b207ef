"""ONNX Runtime sessions over a bundle's graphs, and nothing of ONNX Runtime's errors beyond them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from coterie.runtime._bundle import Bundle
from coterie.runtime.errors import BundleError, ConfigError, InvalidInputError, StoppedError

Array = npt.NDArray[Any]
RunOptions: TypeAlias = ort.RunOptions

_ORT_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
_FATAL_ONLY = 4


class Graph:
    """One graph of a bundle, ready to run; any number of threads may run it at once."""

    def __init__(self, session: ort.InferenceSession, name: str) -> None:
        self._session = session
        self._name = name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(
        self, feeds: Mapping[str, Array], stop: RunOptions | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Return scores [B, C] and probabilities [B, C], or ``None`` where the graph has none.

        Args:
            feeds: The inputs by name.
            stop: Its ``terminate``, set by another thread, ends the run before its next kernel.

        Raises:
            StoppedError: If the run was ended.
            InvalidInputError: If ONNX Runtime refuses a value, for example a token id past the vocabulary.
            BundleError: If the graph fails for any other reason.
        """
        try:
            values = self._session.run(self._outputs, feeds, stop)
        except ort_state.InvalidArgument as error:
            raise InvalidInputError(
                f"graph {self._name!r} refuses a value of the input, such as a token id past the vocabulary: "
                "give inputs like those the model was trained on"
            ) from error
        except Exception as error:
            if stop is not None and stop.terminate:
                raise StoppedError("the run was ended: nobody waits for its answer") from error
            raise BundleError(
                f"graph {self._name!r} failed ({type(error).__name__}): export it again"
            ) from error
        outputs = dict(zip(self._outputs, values, strict=True))
        return outputs["scores"], outputs.get("probabilities")


class Sessions:
    """Makes the graphs of one bundle, each on its first use, the same for every thread."""

    def __init__(self, bundle: Bundle, *, providers: Sequence[str], threads: int | None) -> None:
        check_options(providers, threads)
        self._bundle = bundle
        self._providers = list(providers)
        self._threads = threads
        self._graphs: dict[str, Graph] = {}
        self._lock = threading.Lock()

    def router(self) -> Graph:
        """Return the router graph: one session that holds every weight once, prepacked for speed."""
        wanted = {**self._input(), "row": "int64", "task": "int64"}
        return self._get(self._bundle.manifest.router, wanted, prepack=True)

    def task(self, index: int) -> Graph:
        """Return one task's graph: its weights stay mapped from the file that all tasks share."""
        return self._get(self._bundle.manifest.tasks[index].graph, self._input(), prepack=False)

    def _input(self) -> dict[str, str]:
        spec = self._bundle.manifest.inputs[0]
        return {spec.name: spec.dtype}

    def _get(self, name: str, inputs: dict[str, str], *, prepack: bool) -> Graph:
        graph = self._graphs.get(name)
        if graph is None:
            with self._lock:
                graph = self._graphs.get(name)
                if graph is None:
                    graph = self._graphs[name] = self._make(name, inputs, prepack=prepack)
        return graph

    def _make(self, name: str, inputs: dict[str, str], *, prepack: bool) -> Graph:
        file = self._bundle.graph(name)
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        if prepack:
            options.intra_op_num_threads = self._threads or 0
        else:
            # A prepacked copy for each session would undo the sharing, and so would the NCHWc rewrite; a
            # thread pool for each would make thousands of threads.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.intra_op_num_threads = self._threads or 1
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
        _check_contract(session, name, inputs)
        return Graph(session, name)


def check_options(providers: Sequence[str], threads: int | None) -> None:
    """Check the options of a session.

    Raises:
        ConfigError: If a provider is not in this ONNX Runtime, or ``threads`` is not positive.
    """
    available = ort.get_available_providers()
    problems = [
        f"providers: {provider!r} is not in this ONNX Runtime, which has {', '.join(available)}"
        + ("; install coterie[gpu]" if provider.startswith(("CUDA", "Tensorrt")) else "")
        for provider in providers
        if provider not in available
    ]
    if not providers:
        problems.append("providers: give at least one, such as 'CPUExecutionProvider'")
    if threads is not None and threads < 1:
        problems.append(f"threads: {threads} is not positive; leave it out for one a core")
    if problems:
        raise ConfigError("the engine cannot be made with these options", problems)


def _check_contract(session: ort.InferenceSession, name: str, inputs: dict[str, str]) -> None:
    has = {argument.name: _ORT_TYPES.get(argument.type, argument.type) for argument in session.get_inputs()}
    # A graph of constant answers may drop what it does not read; it may not ask for more.
    foreign = {key: dtype for key, dtype in has.items() if inputs.get(key) != dtype}
    outputs = {argument.name: argument.type for argument in session.get_outputs()}
    extra = set(outputs) - {"scores", "probabilities"}
    if foreign or "scores" not in outputs or extra or set(outputs.values()) != {"tensor(float)"}:
        raise BundleError(
            f"graph {name!r} takes {has} and gives {outputs}: a bundle's graph takes {inputs} and gives "
            "float32 scores and probabilities; export the bundle again"
        )

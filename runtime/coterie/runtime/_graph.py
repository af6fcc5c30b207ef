"""One graph of a bundle in an ONNX Runtime session, and nothing of ONNX Runtime's errors beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from coterie.runtime.errors import BundleError, InvalidInputError, StoppedError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
RunOptions: TypeAlias = ort.RunOptions

_ORT_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


class Graph:
    """One graph of a bundle, ready to run; any number of threads may run it at once.

    On the CPU the inputs are read where they lie, and the answers are views of what the graph has made.

    Args:
        session: A session of the graph.
        name: The graph's file, for errors.
        bound: Bind inputs and outputs before a run; on a device each is then copied once.
    """

    def __init__(self, session: ort.InferenceSession, name: str, *, bound: bool = False) -> None:
        self._session = session
        self._name = name
        self._bound = bound
        self._inputs = {argument.name for argument in session.get_inputs()}
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], stop: RunOptions | None = None) -> tuple[Floats, Floats | None]:
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
            run = self._run_bound if self._bound else self._run
            outputs = dict(zip(self._outputs, run(feeds, stop), strict=True))
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
        return outputs["scores"], outputs.get("probabilities")

    def _run(self, feeds: Mapping[str, Array], stop: RunOptions | None) -> list[Any]:
        values: list[Any] = self._session.run(self._outputs, feeds, stop)
        return values

    def _run_bound(self, feeds: Mapping[str, Array], stop: RunOptions | None) -> list[Any]:
        binding = self._session.io_binding()
        for name in self._inputs:
            binding.bind_cpu_input(name, feeds[name])
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding, stop)
        return [value.numpy() for value in binding.get_outputs()]


def check_contract(session: ort.InferenceSession, name: str, inputs: Mapping[str, str]) -> None:
    """Check that a graph takes and gives what a bundle's graphs do.

    Args:
        session: A session of the graph.
        name: The graph's file, for errors.
        inputs: What it may take: dtypes by name.

    Raises:
        BundleError: If it does not.
    """
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

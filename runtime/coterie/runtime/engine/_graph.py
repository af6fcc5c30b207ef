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

_OUT_OF_RANGE = "out of data bounds"
"""Of a run with bound tensors ONNX Runtime's error has no type of its own, only this text."""

_ORT_TYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class Graph:
    """One graph of a bundle, ready to run; any number of threads may run it at once.

    On the CPU the inputs are read where they lie, and the answers are views of what the graph has made.

    Args:
        session: A session of the graph.
        name: The graph's file, for errors.
        bound: Bind inputs and outputs before a run; on a device each is then copied once.

    Attributes:
        takes: Names of its inputs.
        gives: Dtypes of its outputs by name.
    """

    def __init__(self, session: ort.InferenceSession, name: str, *, bound: bool = False) -> None:
        self._session = session
        self._name = name
        self._bound = bound
        self.takes = {argument.name for argument in session.get_inputs()}
        self.gives = {output.name: _dtype(output) for output in session.get_outputs()}
        self._outputs = list(self.gives)

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
        outputs = self.outputs(feeds, stop)
        return outputs["scores"], outputs.get("probabilities")

    def outputs(self, feeds: Mapping[str, Array], stop: RunOptions | None = None) -> dict[str, Any]:
        """Return all outputs by name; takes and raises what ``run`` does."""
        try:
            run = self._run_bound if self._bound else self._run
            return dict(zip(self._outputs, run(feeds, stop), strict=True))
        except Exception as error:
            if isinstance(error, ort_state.InvalidArgument) or _OUT_OF_RANGE in str(error):
                raise InvalidInputError(
                    f"graph {self._name!r} refuses a value of the input, such as a token id past the "
                    "vocabulary: give inputs like those the model was trained on"
                ) from error
            if stop is not None and stop.terminate:
                raise StoppedError("the run was ended: nobody waits for its answer") from error
            raise BundleError(
                f"graph {self._name!r} failed ({type(error).__name__}): export it again"
            ) from error

    def _run(self, feeds: Mapping[str, Array], stop: RunOptions | None) -> list[Any]:
        values: list[Any] = self._session.run(self._outputs, feeds, stop)
        return values

    def _run_bound(self, feeds: Mapping[str, Array], stop: RunOptions | None) -> list[Any]:
        binding = self._session.io_binding()
        for name in self.takes:
            binding.bind_cpu_input(name, feeds[name])
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding, stop)
        return [value.numpy() for value in binding.get_outputs()]


def check_contract(
    session: ort.InferenceSession, name: str, inputs: Mapping[str, str], *, dispatch: bool = False
) -> None:
    """Check that a graph takes and gives what a bundle's graphs do.

    Args:
        session: A session of the graph.
        name: The graph's file, for errors.
        inputs: What it may take: dtypes by name.
        dispatch: Whether it is the dispatch of a router, which gives what the router's other part takes.

    Raises:
        BundleError: If it does not.
    """
    has = {argument.name: _dtype(argument) for argument in session.get_inputs()}
    # A graph of constant answers may drop what it does not read; it may not ask for more.
    foreign = {key: dtype for key, dtype in has.items() if inputs.get(key) != dtype}
    outputs = {argument.name: argument.type for argument in session.get_outputs()}
    extra = set(outputs) - {"scores", "probabilities"}
    answers = "scores" in outputs and not extra and set(outputs.values()) == {"tensor(float)"}
    if foreign or not (answers or dispatch):
        gives = "a dispatch" if dispatch else "float32 scores and probabilities"
        raise BundleError(
            f"graph {name!r} takes {has} and gives {outputs}: a bundle's graph takes {inputs} and gives "
            f"{gives}; export the bundle again"
        )


def _dtype(argument: Any) -> str:
    """Return the dtype of an input or an output of a session; its type, where that is of no bundle."""
    return _ORT_TYPES.get(argument.type, str(argument.type))

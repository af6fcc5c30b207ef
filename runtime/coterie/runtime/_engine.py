"""The engine: questions in, answers out; synchronous, thread-safe, embeddable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coterie.runtime._bundle import Bundle, load_bundle
from coterie.runtime._inputs import as_indices, as_inputs
from coterie.runtime._prediction import Prediction
from coterie.runtime._sessions import Sessions
from coterie.runtime.errors import BundleError, ConfigError, InvalidInputError
from coterie.runtime.tasks import TaskSpec

Mode = Literal["router", "task"]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Engine:
    """Answers questions about a bundle's tasks; any number of threads may ask at once.

    Args:
        bundle: A verified bundle.
        mode: ``router``: one session for all tasks, every weight held once, fastest for mixed questions.
            ``task``: a session for each task asked, made on its first question, weights mapped and shared
            between processes.
        providers: ONNX Runtime's execution providers, in order of preference.
        threads: Threads that one run may use; by default one a core for the router, one for a task's graph.

    Raises:
        ConfigError: If an option is wrong or a provider is not available.
        BundleError: If ONNX Runtime cannot load the router graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        mode: Mode = "router",
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int | None = None,
    ) -> None:
        if mode not in ("router", "task"):
            raise ConfigError(
                "the engine cannot be made with these options", [f"mode: {mode!r} is not router or task"]
            )
        if len(bundle.manifest.inputs) != 1:
            raise BundleError(f"the bundle has {len(bundle.manifest.inputs)} inputs: this coterie serves one")
        self.bundle = bundle
        self.mode: Mode = mode
        self._sessions = Sessions(bundle, providers=providers, threads=threads)
        self._input = bundle.manifest.inputs[0].name
        self._width = max(task.width for task in bundle.tasks)
        self._tagging = bundle.tasks[0].kind == "tagging"
        self._has_probabilities = any(task.kind != "regression" for task in bundle.tasks)
        if mode == "router":
            self._sessions.router()

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks, in the order of their indices."""
        return self.bundle.tasks

    def predict(self, task: str | Sequence[str | int], inputs: Any) -> Prediction:
        """Ask one task about each of R inputs; or, given R tasks, each of them about its own input.

        Args:
            task: A task's name, or R names or indices.
            inputs: [R, ...], as an array or nested lists; for a text bundle also a string or R strings, or
                R lists of words where it reads words.

        Raises:
            UnknownTaskError: If the bundle has no such task.
            InvalidInputError: If the inputs have a wrong shape, type or value.
        """
        if not isinstance(task, str):
            return self.predict_many(inputs, None, task)
        index = self.bundle.task_index(task)
        tensor = as_inputs(self.bundle, inputs)
        rows = np.arange(len(tensor), dtype=np.int64)
        scores, probabilities = self._run(tensor, rows, np.full(len(tensor), index, dtype=np.int64))
        spec = self.tasks[index]
        if probabilities is not None:
            probabilities = None if spec.kind == "regression" else probabilities[..., : spec.width]
        scores = scores[..., : spec.width]
        return Prediction((spec,), np.zeros_like(rows), scores, probabilities, self._lengths(tensor))

    def predict_many(self, inputs: Any, row: Any, task: Any) -> Prediction:
        """Ask B questions about R inputs: question b asks ``task[b]`` about ``inputs[row[b]]``.

        Args:
            inputs: [R, ...], as an array or nested lists; for a text bundle also a string or R strings, or
                R lists of words where it reads words.
            row: [B] indices of inputs; ``None`` when B is R and each question has its own.
            task: [B] task names or indices.

        Raises:
            UnknownTaskError: If the bundle has no such task.
            InvalidInputError: If the inputs or indices have a wrong shape, type or value.
        """
        tensor = as_inputs(self.bundle, inputs)
        tasks = self.task_indices(task)
        if row is None:
            if len(tasks) != len(tensor):
                raise InvalidInputError(
                    f"there are {len(tasks)} tasks for {len(tensor)} inputs: "
                    "say in 'row' which input each is about"
                )
            rows = np.arange(len(tensor), dtype=np.int64)
        else:
            rows = as_indices("row", row, length=len(tasks), below=len(tensor))
        scores, probabilities = self._run(tensor, rows, tasks)
        lengths = self._lengths(tensor)
        return Prediction(
            self.tasks, tasks, scores, probabilities, None if lengths is None else lengths[rows]
        )

    def task_indices(self, task: Any) -> Indices:
        """Return task names or indices as indices [B].

        Raises:
            UnknownTaskError: If a name or an index is of no task.
            InvalidInputError: If they are neither names nor integers.
        """
        if isinstance(task, np.ndarray) and task.dtype.kind in "OU":
            task = task.reshape(-1).tolist()
        if isinstance(task, (list, tuple)) and any(isinstance(name, str) for name in task):
            for at, name in enumerate(task):
                if not isinstance(name, str):
                    raise InvalidInputError(f"task[{at}] is no name: give only names, or only indices")
            return np.array([self.bundle.task_index(name) for name in task], dtype=np.int64)
        return as_indices("task", task, length=None, below=len(self.tasks))

    def warm(self) -> None:
        """Answer one question, so that the first caller does not pay for what is made on first use."""
        spec = self.bundle.manifest.inputs[0]
        inputs = np.ones((1, *(dim or 1 for dim in spec.shape[1:])), dtype=spec.dtype)
        self._run(inputs, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))

    def _lengths(self, inputs: Array) -> Indices | None:
        """Return the number of words of each input [R]; ``None`` unless the tasks are taggings."""
        if not self._tagging:
            return None
        words = inputs[:, :, 0] if inputs.ndim == 3 else inputs
        lengths: Indices = np.count_nonzero(words, axis=1).astype(np.int64)
        return lengths

    def _shape(self, inputs: Array, questions: int) -> tuple[int, ...]:
        return (questions, *(inputs.shape[1:2] if self._tagging else ()), self._width)

    def _run(self, inputs: Array, row: Indices, task: Indices) -> tuple[Floats, Floats | None]:
        """Return scores and probabilities, each [B, Cmax], or [B, L, Cmax] for taggings."""
        if not len(row):
            empty = np.zeros(self._shape(inputs, 0), dtype=np.float32)
            return empty, empty if self._has_probabilities else None
        if self.mode == "router":
            scores, probabilities = self._sessions.router().run(
                {self._input: inputs, "row": row, "task": task}
            )
        else:
            scores, probabilities = self._run_tasks(inputs, row, task)
        if not np.isfinite(scores).all():
            at = int(np.argwhere(~np.isfinite(scores))[0][0])
            raise InvalidInputError(
                f"the answer about input {row[at]} is not finite: "
                "its values are far from what the model was trained on"
            )
        return scores, probabilities

    def _run_tasks(self, inputs: Array, row: Indices, task: Indices) -> tuple[Floats, Floats | None]:
        scores = np.zeros(self._shape(inputs, len(row)), dtype=np.float32)
        probabilities = np.zeros_like(scores) if self._has_probabilities else None
        for index in np.unique(task):
            asked = np.flatnonzero(task == index)
            own_scores, own_probabilities = self._sessions.task(int(index)).run(
                {self._input: inputs[row[asked]]}
            )
            scores[asked, ..., : own_scores.shape[-1]] = own_scores
            if probabilities is not None and own_probabilities is not None:
                probabilities[asked, ..., : own_probabilities.shape[-1]] = own_probabilities
        return scores, probabilities


def load(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "router",
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int | None = None,
) -> Engine:
    """Read and verify a bundle and return an engine for it; the options are ``Engine``'s.

    Raises:
        BundleError: If the folder holds no bundle, or one that cannot be loaded.
        IntegrityError: If a file of it is missing, truncated, altered or foreign.
        ConfigError: If an option is wrong or a provider is not available.
    """
    return Engine(load_bundle(path), mode=mode, providers=providers, threads=threads)

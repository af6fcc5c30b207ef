"""The engine: questions in, answers out; synchronous, thread-safe, embeddable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coterie.runtime._asked import Asked
from coterie.runtime._bundle import Bundle, load_bundle
from coterie.runtime._inputs import as_indices, as_inputs
from coterie.runtime._prediction import Prediction
from coterie.runtime._sessions import RunOptions, Sessions
from coterie.runtime._signature import PublicKey
from coterie.runtime.errors import BundleError, ConfigError, InvalidInputError
from coterie.runtime.tasks import TaskSpec

Mode = Literal["router", "task"]
_ROUNDING = 1e-2
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
        widths = np.array([task.width for task in bundle.tasks])
        self._beyond = np.arange(self._width) >= widths[:, None]
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
        return self.answer(self.prepare(task, inputs))

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
        return self.answer(self.prepare_many(inputs, row, task))

    def prepare(self, task: str | Sequence[str | int], inputs: Any) -> Asked:
        """Check what ``predict`` is to be asked; raises as it does."""
        if not isinstance(task, str):
            return self.prepare_many(inputs, None, task)
        index = self.bundle.task_index(task)
        tensor = as_inputs(self.bundle, inputs)
        rows = np.arange(len(tensor), dtype=np.int64)
        return Asked(tensor, rows, np.full(len(tensor), index, dtype=np.int64), self.tasks[index])

    def prepare_many(self, inputs: Any, row: Any, task: Any) -> Asked:
        """Check what ``predict_many`` is to be asked; raises as it does."""
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
        return Asked(tensor, rows, tasks)

    def answer(self, asked: Asked) -> Prediction:
        """Answer questions that were prepared; raises as ``predict`` does."""
        return self.conclude(asked, *self.run(asked))

    def conclude(self, asked: Asked, scores: Floats, probabilities: Floats | None) -> Prediction:
        """Return the answers to questions, from their scores and probabilities ``[B, Cmax]``.

        Raises:
            InvalidInputError: If a score is not finite.
            BundleError: If a probability is none.
        """
        if not np.isfinite(scores).all():
            at = int(np.argwhere(~np.isfinite(scores))[0][0])
            raise InvalidInputError(
                f"the answer about input {asked.row[at]} is not finite: "
                "its values are far from what the model was trained on"
            )
        if probabilities is not None and not self._is_sensible(probabilities, asked.task):
            raise BundleError("a graph answered with probabilities that are none: export the bundle again")
        lengths = self._lengths(asked.inputs)
        spec = asked.spec
        if spec is None:
            own = None if lengths is None else lengths[asked.row]
            return Prediction(self.tasks, asked.task, scores, probabilities, own)
        if probabilities is not None:
            probabilities = None if spec.kind == "regression" else probabilities[..., : spec.width]
        return Prediction(
            (spec,), np.zeros_like(asked.row), scores[..., : spec.width], probabilities, lengths
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
        self.answer(Asked(inputs, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)))

    def _lengths(self, inputs: Array) -> Indices | None:
        """Return the number of words of each input [R]; ``None`` unless the tasks are taggings."""
        if not self._tagging:
            return None
        words = inputs[:, :, 0] if inputs.ndim == 3 else inputs
        lengths: Indices = np.count_nonzero(words, axis=1).astype(np.int64)
        return lengths

    def _shape(self, inputs: Array, questions: int) -> tuple[int, ...]:
        return (questions, *(inputs.shape[1:2] if self._tagging else ()), self._width)

    def run(self, asked: Asked, stop: RunOptions | None = None) -> tuple[Floats, Floats | None]:
        """Return scores and probabilities as the graphs give them: [B, Cmax], [B, L, Cmax] for taggings.

        Args:
            asked: The questions.
            stop: Its ``terminate``, set by another thread, ends the run before its time.

        Raises:
            InvalidInputError: If ONNX Runtime refuses a value.
            StoppedError: If the run was ended.
            BundleError: If a graph fails, or its answer is not of the shape that the manifest promises.
        """
        if not len(asked):
            empty = np.zeros(self._shape(asked.inputs, 0), dtype=np.float32)
            return empty, empty if self._has_probabilities else None
        if self.mode == "task":
            return self._run_tasks(asked.inputs, asked.row, asked.task, stop)
        feeds = {self._input: asked.inputs, "row": asked.row, "task": asked.task}
        scores, probabilities = self._sessions.router().run(feeds, stop)
        shape = self._shape(asked.inputs, len(asked))
        _check_answer(scores, probabilities, shape, self._has_probabilities)
        return scores, probabilities

    def _is_sensible(self, probabilities: Floats, task: Indices) -> bool:
        """Return whether probabilities are numbers from 0 to 1, and 0 past the width of a question's task."""
        inside = (probabilities >= -_ROUNDING) & (probabilities <= 1 + _ROUNDING)
        if not self._beyond.any():
            return bool(inside.all())
        beyond = self._beyond[task]
        if self._tagging:
            beyond = beyond[:, None]
        return bool((inside & ~(beyond & (probabilities != 0))).all())

    def _run_tasks(
        self, inputs: Array, row: Indices, task: Indices, stop: RunOptions | None
    ) -> tuple[Floats, Floats | None]:
        scores = np.zeros(self._shape(inputs, len(row)), dtype=np.float32)
        probabilities = np.zeros_like(scores) if self._has_probabilities else None
        for index in np.unique(task):
            asked = np.flatnonzero(task == index)
            own_scores, own_probabilities = self._sessions.task(int(index)).run(
                {self._input: inputs[row[asked]]}, stop
            )
            spec = self.tasks[index]
            shape = (*self._shape(inputs, len(asked))[:-1], spec.width)
            _check_answer(own_scores, own_probabilities, shape, spec.kind != "regression")
            scores[asked, ..., : own_scores.shape[-1]] = own_scores
            if probabilities is not None and own_probabilities is not None:
                probabilities[asked, ..., : own_probabilities.shape[-1]] = own_probabilities
        return scores, probabilities


def _check_answer(
    scores: Array, probabilities: Array | None, shape: tuple[int, ...], has_probabilities: bool
) -> None:
    """Check that a graph has answered every question, with as many numbers as its tasks have labels."""
    shapes = [scores.shape, *([] if probabilities is None else [probabilities.shape])]
    if len(shapes) != 1 + has_probabilities or any(each != shape for each in shapes):
        raise BundleError(
            f"a graph answered with {shapes} where {1 + has_probabilities} x {shape} was expected: its "
            "manifest is not its own; export the bundle again"
        )


def load(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "router",
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int | None = None,
    public_key: PublicKey | None = None,
) -> Engine:
    """Read and verify a bundle and return an engine for it; the options are those of both.

    Args:
        path: The bundle's folder.
        mode: See ``Engine``.
        providers: See ``Engine``.
        threads: See ``Engine``.
        public_key: If given, the bundle must be signed with its private half; see ``load_bundle``.

    Raises:
        BundleError: If the folder holds no bundle, or one that cannot be loaded.
        IntegrityError: If a file of it is missing, truncated, altered or foreign.
        SignatureError: If a key is given and the bundle is not signed with it.
        ConfigError: If an option is wrong or a provider is not available.
        MissingExtraError: If a key is given and ``coterie[sign]`` is not installed.
    """
    bundle = load_bundle(path, public_key=public_key)
    return Engine(bundle, mode=mode, providers=providers, threads=threads)

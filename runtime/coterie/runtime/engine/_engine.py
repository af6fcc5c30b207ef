"""The engine: questions in, answers out; synchronous, thread-safe, embeddable."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.bundle._signature import PublicKey
from coterie.runtime.engine._asked import Asked
from coterie.runtime.engine._devices import provider_problems
from coterie.runtime.engine._graph import RunOptions
from coterie.runtime.engine._inputs import as_indices, as_inputs
from coterie.runtime.engine._prediction import Prediction, Timing
from coterie.runtime.engine._runner import Mode, Runner
from coterie.runtime.engine._sessions import Sessions, Weights
from coterie.runtime.engine._values import all_finite, all_within
from coterie.runtime.errors import BundleError, ConfigError, InvalidInputError
from coterie.runtime.tasks import TaskSpec

SESSION_BYTES = 64 * 1024 * 1024
"""What the sessions of single tasks may take, unless another number is given."""

_ROUNDING = 1e-2
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_ONLY: Indices = np.zeros(1, dtype=np.int64)
"""The one input that a single question is about."""
_ONLY.flags.writeable = False


class Engine:
    """Answers questions about a bundle's tasks; any number of threads may ask at once.

    Args:
        bundle: A verified bundle.
        mode: Which graphs answer. ``router``: one session for all tasks, every weight held once, fastest for
            mixed questions. ``task``: a session for each task asked, made on its first question. ``auto``:
            the router, and for a few questions to one task that task's own session, where ``warm`` has
            measured that it pays; tasks asked often get one.
        weights: ``fast``: each session packs the weights that it uses into a form of its own. ``shared``:
            they stay mapped from the file, one copy for all sessions and processes; batches are slower.
        session_bytes: What the sessions of single tasks may take together.
        providers: ONNX Runtime's execution providers, in order of preference.
        threads: Threads that one run may use; by default one a core for the router, one for a task's graph,
            which in mode ``auto`` never has more.

    Raises:
        ConfigError: If an option is wrong or a provider is not available.
        BundleError: If ONNX Runtime cannot load the router graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        mode: Mode = "auto",
        weights: Weights = "fast",
        session_bytes: int = SESSION_BYTES,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int | None = None,
    ) -> None:
        problems = [
            *_choice_problems("mode", mode, get_args(Mode)),
            *_choice_problems("weights", weights, get_args(Weights)),
            *([f"session_bytes: {session_bytes} is negative; 0 is none"] if session_bytes < 0 else []),
            *provider_problems(providers),
            *(
                []
                if threads is None or threads > 0
                else [f"threads: {threads} is not positive; leave it out"]
            ),
        ]
        if problems:
            raise ConfigError("the engine cannot be made with these options", problems)
        self.bundle = bundle
        self.mode: Mode = mode
        self.weights: Weights = weights
        sessions = Sessions(
            bundle,
            weights=weights,
            providers=providers,
            threads=threads,
            # Beside the router they are many and answer a few questions each.
            task_threads=(threads or 1) if mode == "task" else 1,
        )
        self._runner = Runner(bundle, sessions, mode, session_bytes)
        widths = np.array([task.width for task in bundle.tasks])
        self._beyond = np.arange(widths.max()) >= widths[:, None]
        self._all_as_wide = not self._beyond.any()
        self._tagging = bundle.tasks[0].kind == "tagging"
        # Of a single question to each task.
        self._alone = np.arange(len(bundle.tasks), dtype=np.int64)[:, None]
        self._alone.flags.writeable = False

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks, in the order of their indices."""
        return self.bundle.tasks

    def predict(self, task: str | Sequence[str | int], inputs: Any) -> Prediction:
        """Ask one task about each of R inputs; or, given R tasks, each of them about its own input.

        Args:
            task: A task's name, or R names or indices.
            inputs: [R, ...], as an array or nested lists; for a text bundle also a string or R strings, or
                R lists of words where it reads words. Of a model with several inputs either a mapping from
                the name of each to such a value, or R mappings, each of one row.

        Raises:
            UnknownTaskError: If the bundle has no such task.
            InvalidInputError: If the inputs have a wrong name, shape, type or value.
        """
        return self.answer(self.prepare(task, inputs))

    def predict_many(self, inputs: Any, row: Any, task: Any) -> Prediction:
        """Ask B questions about R inputs: question b asks ``task[b]`` about ``inputs[row[b]]``.

        Args:
            inputs: As ``predict`` takes them.
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
        tensors, count = as_inputs(self.bundle, inputs)
        if count == 1:
            return Asked(tensors, _ONLY, self._alone[index], self.tasks[index])
        rows = np.arange(count, dtype=np.int64)
        return Asked(tensors, rows, np.full(count, index, dtype=np.int64), self.tasks[index])

    def prepare_many(self, inputs: Any, row: Any, task: Any) -> Asked:
        """Check what ``predict_many`` is to be asked; raises as it does."""
        tensors, count = as_inputs(self.bundle, inputs)
        tasks = self.task_indices(task)
        if row is None:
            if len(tasks) != count:
                raise InvalidInputError(
                    f"there are {len(tasks)} tasks for {count} inputs: say in 'row' which input each is about"
                )
            rows = np.arange(count, dtype=np.int64)
        else:
            rows = as_indices("row", row, length=len(tasks), below=count)
        return Asked(tensors, rows, tasks)

    def answer(self, asked: Asked) -> Prediction:
        """Answer questions that were prepared; raises as ``predict`` does."""
        scores, probabilities = self.run(asked)
        self.check(asked, scores, probabilities)
        return self.assemble(asked, scores, probabilities)

    def check(self, asked: Asked, scores: Floats, probabilities: Floats | None) -> None:
        """Check scores and probabilities ``[B, Cmax]`` of questions, or of many requests' together.

        Raises:
            InvalidInputError: If a score is not finite.
            BundleError: If a probability is none.
        """
        if not all_finite(scores):
            at = int(np.argwhere(~np.isfinite(scores))[0][0])
            row = asked.row[at] if asked.number is None else asked.number[asked.row[at]]
            raise InvalidInputError(
                f"the answer about input {row} is not finite: "
                "its values are far from what the model was trained on"
            )
        if probabilities is not None and not self._is_sensible(probabilities, asked.task):
            raise BundleError("a graph answered with probabilities that are none: export the bundle again")

    def assemble(
        self, asked: Asked, scores: Floats, probabilities: Floats | None, timing: Timing | None = None
    ) -> Prediction:
        """Return the answers to questions, from scores and probabilities ``[B, Cmax]`` that were checked."""
        lengths = self._lengths(asked.inputs)
        spec = asked.spec
        if spec is None:
            own = None if lengths is None else lengths[asked.row]
            return Prediction(self.tasks, asked.task, scores, probabilities, own, timing)
        if probabilities is not None:
            probabilities = None if spec.kind == "regression" else probabilities[..., : spec.width]
        task = np.zeros(len(asked), dtype=np.int64)
        return Prediction((spec,), task, scores[..., : spec.width], probabilities, lengths, timing)

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
        """Answer one question, so that the first caller does not pay for what is made on first use.

        In mode ``auto`` this is also when the sessions of single tasks are tried, for less than a second.
        """
        inputs = {
            spec.name: np.ones((1, *(dim or 1 for dim in spec.shape[1:])), dtype=spec.dtype)
            for spec in self.bundle.manifest.inputs
        }
        self.answer(Asked(inputs, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)))
        self._runner.choose(inputs)

    def _lengths(self, inputs: Mapping[str, Array]) -> Indices | None:
        """Return the number of words of each input [R]; ``None`` unless the tasks are taggings."""
        if not self._tagging:
            return None
        (words,) = inputs.values()
        words = words[:, :, 0] if words.ndim == 3 else words
        lengths: Indices = np.count_nonzero(words, axis=1).astype(np.int64)
        return lengths

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
        return self._runner.run(asked, stop)

    def _is_sensible(self, probabilities: Floats, task: Indices) -> bool:
        """Return whether probabilities are numbers from 0 to 1, and 0 past the width of a question's task."""
        if not all_within(probabilities, -_ROUNDING, 1 + _ROUNDING):
            return False
        if self._all_as_wide:
            return True
        beyond = self._beyond[task]
        if self._tagging:
            beyond = beyond[:, None]
        return not (beyond & (probabilities != 0)).any()


def _choice_problems(name: str, value: object, choices: Sequence[str]) -> list[str]:
    return [] if value in choices else [f"{name}: {value!r} is not one of {', '.join(choices)}"]


def load(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "auto",
    weights: Weights = "fast",
    session_bytes: int = SESSION_BYTES,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int | None = None,
    public_key: PublicKey | None = None,
) -> Engine:
    """Read and verify a bundle and return an engine for it; the options are those of both.

    Args:
        path: The bundle's folder.
        mode: See ``Engine``.
        weights: See ``Engine``.
        session_bytes: See ``Engine``.
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
    return Engine(
        bundle,
        mode=mode,
        weights=weights,
        session_bytes=session_bytes,
        providers=providers,
        threads=threads,
    )

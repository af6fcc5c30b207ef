"""Trials: a mutated bundle is loaded and asked in a process of its own, with little memory and little time.

What may come of it:

- ``refused``: a ``CoterieError``;
- ``same``: it answers as the bundle it was made of;
- ``different``: it answers otherwise. Only a forgery may, and only where no signature is asked for.

What may not:

- ``escaped``: another exception, or one that tells a path;
- ``outside``: a file outside of the bundle was opened;
- ``crashed``: the process ended;
- ``hung``: it took longer than ``SECONDS``.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import resource
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.runtime import CoterieError, Engine, IntegrityError, load_bundle

from .mutations import DAMAGE, FILE_OUTSIDE, FORGED, Case

SECONDS = 30.0
MEMORY = 6 << 30
"""Of address space; ONNX Runtime's threads and arenas reserve much more than they use."""
ALLOWED = frozenset({"refused", "same", "different"})

_MODES = ("router", "task")
_OPEN_EVENTS = 0x00000020 | 0x00000001  # IN_OPEN, IN_ACCESS


@dataclass(frozen=True)
class Trial:
    """One mutation of one bundle, and what came of it."""

    seed: int
    mutation: str
    forged: bool
    outcome: str
    detail: str = ""

    @property
    def allowed(self) -> bool:
        """Whether that may happen."""
        return self.outcome in ALLOWED and (self.forged or self.outcome != "different")


class Answers:
    """What a bundle answers to fixed questions: every task alone and through the router."""

    def __init__(self, folder: Path, public_key: bytes | None = None) -> None:
        bundle = load_bundle(folder, public_key=public_key)
        self.values: list[Any] = []
        for mode in _MODES:
            engine = Engine(bundle, mode=mode, threads=1)
            inputs = _inputs(engine)
            for task in engine.tasks:
                answer = engine.predict(task.name, inputs)
                self.values += [task.name, answer.scores, answer.probabilities, answer.label]
            count = len(inputs)
            rows = np.arange(count)
            mixed = engine.predict_many(inputs, rows, rows % len(engine.tasks))
            self.values += [mixed.scores, mixed.label_texts()]

    def same(self, other: Answers) -> bool:
        """Return whether all answers are the same, bit for bit."""
        return len(self.values) == len(other.values) and all(
            np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two
            for one, two in zip(self.values, other.values, strict=True)
        )


def _inputs(engine: Engine) -> Any:
    if engine.bundle.text is not None:
        return ["a good book", "the very dull film", "good", "bad bad bad"]
    spec = engine.bundle.manifest.inputs[0]
    shape = [4, *(5 if size is None else size for size in spec.shape[1:])]
    generator = np.random.default_rng(0)
    if spec.dtype == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    return generator.integers(1, 2, shape).astype(spec.dtype)


class Watch:
    """Sees every opening of a file, in whatever code, by asking the kernel (Linux only)."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for path in paths:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(path), _OPEN_EVENTS) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def seen(self) -> bool:
        """Return whether anything was opened since the last call."""
        try:
            return len(os.read(self._descriptor, 1 << 16)) >= struct.calcsize("iIII")
        except BlockingIOError:
            return False


class Tester:
    """Makes and judges trials in this process; see ``run_trials`` for many in processes of their own.

    Args:
        bundle: The bundle that is mutated, signed with ``public_key``'s private half if one is given.
        scratch: A folder for the copies.
        public_key: A key that no forgery may pass.
    """

    def __init__(self, bundle: Path, scratch: Path, public_key: bytes | None = None) -> None:
        self._bundle, self._scratch, self._key = bundle, scratch, public_key
        self._outside = scratch / "outside"
        self._outside.mkdir()
        secret = self._outside / FILE_OUTSIDE
        secret.write_bytes(np.full(4096, 7.0, dtype=np.float32).tobytes())
        self._watch = Watch(self._outside, secret)
        self._wanted = Answers(bundle, public_key)

    def trial(self, seed: int) -> Trial:
        """Mutate, load, ask, judge."""
        choose = random.Random(seed)  # noqa: S311 - the same every time, on purpose
        forged = choose.random() < 0.7
        mutation = choose.choice(FORGED if forged else DAMAGE)
        folder = self._scratch / "bundle"
        shutil.copytree(self._bundle, folder)
        try:
            mutation(Case(folder, self._outside, choose))
            self._watch.seen()
            outcome, detail = self._outcome(folder)
            if self._watch.seen():
                outcome = "outside"
        finally:
            shutil.rmtree(folder)
        return Trial(seed, mutation.__name__, forged, outcome, detail)

    def _outcome(self, folder: Path) -> tuple[str, str]:
        try:
            same = Answers(folder).same(self._wanted)
        except CoterieError as error:
            if str(folder) in str(error):
                return "escaped", f"a path is told: {error}"
            return "refused", type(error).__name__
        except Exception as error:
            return "escaped", f"{type(error).__name__}: {error}"
        if same or self._key is None:
            return ("same" if same else "different"), ""
        try:
            Answers(folder, self._key)
        except IntegrityError:
            return "different", ""
        return "escaped", "a forgery passes for signed"


def _work(pipe: Any, bundle: Path, scratch: Path, public_key: bytes | None) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What libraries print of a mutated file is nobody's news.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    tester = Tester(bundle, scratch, public_key)
    pipe.send(None)
    while (seed := pipe.recv()) is not None:
        pipe.send(tester.trial(seed))


class _Worker:
    """A process that makes trials, and is started again when one has ended it."""

    def __init__(self, bundle: Path, public_key: bytes | None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="coterie-fuzz-")
        self.pipe, other = multiprocessing.Pipe()
        folder = Path(self._scratch.name)
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_work, args=(other, bundle, folder, public_key), daemon=True)
        self._process.start()
        other.close()
        if not self.pipe.poll(4 * SECONDS):
            raise TimeoutError("the process that makes trials did not start")
        self.pipe.recv()

    def trial(self, seed: int) -> Trial:
        try:
            self.pipe.send(seed)
            if not self.pipe.poll(SECONDS):
                return Trial(seed, "", True, "hung")
            done: Trial = self.pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return Trial(seed, "", True, "crashed", f"exit code {self._process.exitcode}")
        return done

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._scratch.cleanup()


def run_trials(bundle: Path, seeds: Sequence[int], public_key: bytes | None = None) -> Iterator[Trial]:
    """Yield a trial for each seed, made in a process that is limited in memory and time.

    Args:
        bundle: The bundle that is mutated.
        seeds: What to do to it.
        public_key: PEM of the key that it is signed with, if it is: no forgery may pass then.
    """
    worker = _Worker(bundle, public_key)
    try:
        for seed in seeds:
            trial = worker.trial(seed)
            if trial.outcome in ("hung", "crashed"):
                worker.stop()
                worker = _Worker(bundle, public_key)
            yield trial
    finally:
        worker.stop()

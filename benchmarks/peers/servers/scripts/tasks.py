"""What a script that serves task graphs is told, and a session for each; runs in a peer's environment."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime

SETTINGS = json.loads(Path(os.environ["PEER_SETTINGS"]).read_text(encoding="utf-8"))
"""``port``, ``others`` (two more ports), ``graphs`` (a file for each task), and the peer's own."""


class Sessions:
    """An ordinary session of one thread for each task."""

    def __init__(self) -> None:
        self._sessions = {name: open_session(path) for name, path in SETTINGS["graphs"].items()}

    def scores(self, task: str, rows: list[list[float]] | np.ndarray) -> np.ndarray:
        """Return scores ``[R, C]`` of rows ``[R, D]``."""
        return scores(self._sessions[task], rows)

    def grouped(self, questions: list[tuple[str, list[list[float]]]]) -> list[np.ndarray]:
        """Answer questions of one row each, a run for all that ask the same task."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, (task, _) in enumerate(questions):
            places[task].append(place)
        answers: list[np.ndarray] = [np.empty(0)] * len(questions)
        for task, own in places.items():
            found = self.scores(task, [questions[place][1][0] for place in own])
            for place, row in zip(own, found, strict=True):
                answers[place] = row[None]
        return answers


def open_session(path: str) -> onnxruntime.InferenceSession:
    """Open a task graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def scores(session: onnxruntime.InferenceSession, rows: list[list[float]] | np.ndarray) -> np.ndarray:
    """Return a session's scores ``[R, C]`` of rows ``[R, D]``."""
    feeds = {session.get_inputs()[0].name: np.asarray(rows, dtype=np.float32)}
    return session.run(["scores"], feeds)[0]

"""Task graphs as a service of BentoML; runs in BentoML's environment."""

from __future__ import annotations

import bentoml
from pydantic import BaseModel
from tasks import SETTINGS, Sessions


class Question(BaseModel):
    """A row that a task is asked about: an API that batches takes one argument."""

    task: str
    inputs: list[list[float]]


class Answer(BaseModel):
    """What the task says of it."""

    scores: list[list[float]]


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Tasks:
    """A session for each task, behind one route."""

    def __init__(self) -> None:
        self._sessions = Sessions()

    @bentoml.api(
        batchable=SETTINGS["batch_rows"] > 1,
        max_batch_size=max(2, SETTINGS["batch_rows"]),
        max_latency_ms=SETTINGS["max_latency_ms"],
    )
    def predict(self, questions: list[Question]) -> list[Answer]:
        """Answer what came together, a run for all that ask the same task."""
        found = self._sessions.grouped([(each.task, each.inputs) for each in questions])
        return [Answer(scores=each.tolist()) for each in found]

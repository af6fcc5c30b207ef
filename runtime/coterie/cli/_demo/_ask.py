"""Ask every task in every way there is, and compare with torch."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from coterie.cli._demo._files import Exported
from coterie.runtime import ROUTER, load
from coterie.runtime.serving import Addresses
from coterie.training import Run
from coterie.training.several import each

Floats = npt.NDArray[np.float32]

TOLERANCE = 1e-4
INPUTS = 64


@dataclass(frozen=True)
class Way:
    """One way of asking.

    Attributes:
        name: What it is.
        answers: Number of (image, task) questions it answered; 0 when it could not be asked.
        error: Largest absolute difference of a score from torch's.
        remark: Why it was not asked.
    """

    name: str
    answers: int
    error: float
    remark: str = ""

    @property
    def agrees(self) -> bool:
        """Whether nothing is beyond the tolerance."""
        return self.error <= TOLERANCE


class Questions:
    """Every task asked about the same images, and torch's answers.

    Attributes:
        inputs: ``[R, D]``.
        row: ``[R * N]``, image by image.
        task: ``[R * N]``.
        scores: ``[R * N, C]``, by the trained torch model.
    """

    def __init__(self, run: Run) -> None:
        self.tasks = run.data.tasks
        (samples,) = each(run.samples())
        self.inputs = samples[:INPUTS]
        count = len(self.tasks)
        self.row = np.repeat(np.arange(len(self.inputs), dtype=np.int64), count)
        self.task = np.tile(np.arange(count, dtype=np.int64), len(self.inputs))
        with torch.no_grad():
            asked = (torch.from_numpy(array) for array in (self.inputs, self.row, self.task))
            self.scores: Floats = run.model(*asked).numpy()

    def of_task(self, index: int) -> Floats:
        """Return torch's scores of one task, ``[R, C_task]``."""
        scores: Floats = self.scores[self.task == index][:, : self.tasks[index].width]
        return scores

    def compare_tasks(self, name: str, answers: Mapping[str, Floats]) -> Way:
        """Compare each task's scores ``[R, C_task]``."""
        errors = [np.abs(answers[task.name] - self.of_task(at)).max() for at, task in enumerate(self.tasks)]
        return Way(name, sum(map(len, answers.values())), float(max(errors)))

    def compare(self, name: str, scores: Floats) -> Way:
        """Compare the first ``len(scores)`` questions' scores."""
        return Way(name, len(scores), float(np.abs(scores - self.scores[: len(scores)]).max()))


def ask_in_process(questions: Questions, exported: Exported) -> Iterator[Way]:
    """Ask plain ONNX Runtime sessions and the engine."""
    entry = exported.manifest.inputs[0].name
    graphs = {each.task.name: exported.bundle / each.graph for each in exported.manifest.tasks}
    for name, files in (
        ("task graphs, ONNX Runtime", graphs),
        ("standalone files, ONNX Runtime", exported.files),
    ):
        yield questions.compare_tasks(
            name,
            {
                task: _session(file).run(["scores"], {entry: questions.inputs})[0]
                for task, file in files.items()
            },
        )
    router = _session(exported.bundle / exported.manifest.router)
    feeds = {entry: questions.inputs, "row": questions.row, "task": questions.task}
    yield questions.compare("router graph, ONNX Runtime", router.run(["scores"], feeds)[0])
    engine = load(exported.bundle)
    yield questions.compare(
        "engine, in Python", engine.predict_many(questions.inputs, questions.row, questions.task).scores
    )


def ask_server(questions: Questions, addresses: Addresses, entry: str) -> Iterator[Way]:
    """Ask a running server with Triton's clients and as plain JSON."""
    yield _ask_json(questions, addresses)
    if find_spec("tritonclient") is None:
        yield Way("HTTP and gRPC, tritonclient", 0, 0.0, "pip install 'tritonclient[http,grpc]' to ask them")
        return
    import tritonclient.http

    yield from _ask_triton("HTTP", tritonclient.http, addresses.http, questions, entry)
    if addresses.grpc is not None:
        import tritonclient.grpc

        yield from _ask_triton("gRPC", tritonclient.grpc, addresses.grpc, questions, entry)


def _ask_json(questions: Questions, addresses: Addresses) -> Way:
    """Ask all tasks about the first image, in one call of the typed endpoint."""
    request = urllib.request.Request(
        f"http://{addresses.http}/ask",
        data=json.dumps({"inputs": questions.inputs[:1].tolist()}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - an address of this machine
        answer = json.load(response)["answers"][0]
    scores = np.zeros((len(questions.tasks), questions.scores.shape[1]), dtype=np.float32)
    for at, task in enumerate(questions.tasks):
        scores[at, : task.width] = [answer[task.name]["scores"][label] for label in task.labels]
    return questions.compare("HTTP, plain JSON: one image, every task", scores)


def _ask_triton(
    transport: str, client_of: ModuleType, address: str, questions: Questions, entry: str
) -> Iterator[Way]:
    client = client_of.InferenceServerClient(address)
    wanted = [client_of.InferRequestedOutput("scores")]

    def tensor(name: str, array: npt.NDArray[Any], datatype: str) -> Any:
        made = client_of.InferInput(name, list(array.shape), datatype)
        made.set_data_from_numpy(array)
        return made

    try:
        images = tensor(entry, questions.inputs, "FP32")
        yield questions.compare_tasks(
            f"{transport}, tritonclient: a model for each task",
            {
                task.name: _scores(client.infer(task.name, [images], outputs=wanted))
                for task in questions.tasks
            },
        )
        feeds = [images, tensor("row", questions.row, "INT64"), tensor("task", questions.task, "INT64")]
        yield questions.compare(
            f"{transport}, tritonclient: the router, one call",
            _scores(client.infer(ROUTER, feeds, outputs=wanted)),
        )
    finally:
        client.close()


def _scores(result: Any) -> Floats:
    scores: Floats = result.as_numpy("scores")
    return scores


def _session(file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def worst(ways: Sequence[Way]) -> float:
    """Return the largest difference of all."""
    return max(way.error for way in ways)

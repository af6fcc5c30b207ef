"""What graphs are asked before they are published: batches of every size, sequences of every length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import MODELS, samples

from coterie.exporter._verify import GraphSession
from coterie.runtime.errors import ParityError

Get = Callable[[str], Exported]
Feeds = dict[str, np.ndarray]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Feeds]]:
    """What each graph is asked, by its file."""
    found: dict[str, list[Feeds]] = {}
    run = GraphSession.run

    def record(self: GraphSession, feeds: Feeds) -> dict[str, np.ndarray]:
        found.setdefault(self.file, []).append(feeds)
        return run(self, feeds)

    monkeypatch.setattr(GraphSession, "run", record)
    return found


def test_batches_are_of_no_one_two_an_odd_number_all_and_a_thousand_inputs(
    asked: dict[str, list[Feeds]], tmp_path: Path
) -> None:
    publish(MODELS["shared"](), tmp_path / "bundle")
    assert len(asked) == 9
    counts = {int(feeds["count"][0]) for feeds in asked.pop("router.host.onnx")}
    assert {0, 1, 2, 11, 21, 1001} <= counts
    thousand = {"router.onnx", "router.device.onnx", "t0.onnx", "t3.onnx", "t5.onnx"}
    for file, runs in asked.items():
        sizes = {len(feeds["inputs"]) for feeds in runs}
        assert {0, 1, 2, 11, 21} <= sizes
        # A thousand: the router, and the first, the middle and the last task.
        assert (max(sizes) == 1001) == (file in thousand)
    questions = {(len(feeds["inputs"]), len(feeds["row"])) for feeds in asked["router.onnx"]}
    assert {(0, 0), (21, 0), (1, 1), (1, 6), (1001, 1001)} <= questions
    assert any(count > inputs for inputs, count in questions if inputs > 1)


def test_sequences_are_of_every_length(asked: dict[str, list[Feeds]], tmp_path: Path) -> None:
    model = MODELS["sequences"]()
    tokens = samples(model)
    longest = tokens.shape[1]
    publish(model, tmp_path / "bundle")
    for file in ("router.onnx", "router.device.onnx", "x.onnx", "y.onnx", "z.onnx"):
        lengths = {feeds["tokens"].shape[1] for feeds in asked[file]}
        assert lengths == set(range(1, longest + 1)), file


@pytest.mark.parametrize("length", [1, 3, 40, 70])
def test_a_length_that_is_answered_otherwise_fails_the_export(tmp_path: Path, length: int) -> None:
    model = MODELS["sequences"]()
    long = np.tile(samples(model), (1, 8))[:, :70]

    def other(inputs: torch.Tensor, row: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return model(inputs, row, task) + 1.0 * (abs(inputs.shape[1] - length) <= (length > 32))

    with pytest.raises(ParityError, match="differs from the torch model"):
        publish(model, tmp_path / "bundle", reference=other, samples=long)

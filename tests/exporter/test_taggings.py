"""Taggings: heads that answer each word, of equal and unlike widths, whatever the sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from coterie.exporter import About, export, export_standalone
from coterie.runtime.errors import ParityError
from coterie.runtime.manifest import Provenance, TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import ModelConfig, MultiTaskModel, build_model
from coterie.training.blocks import InputShape
from coterie.training.yaml_config import load_config

WIDTHS = (3, 5, 3, 2, 5)
TASKS = tuple(
    TaskSpec(name=f"task{number}", kind="tagging", labels=tuple(f"tag{tag}" for tag in range(width)))
    for number, width in enumerate(WIDTHS)
)
ROWS, LONGEST = 7, 6


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    block = {"kind": "word_chars", "width": 6, "characters": 4, "filters": 4}
    stages = [{"kind": "gated", "experts": 3, "mixture": "ones", "block": block}]
    return build_model(
        load_config(ModelConfig, source={"stages": stages, "head": {"alike": False}}),
        input=TensorSpec(name="tokens", dtype="int64", shape=(None, None, 5)),
        shape=InputShape(dims=(None, 5), tokens=True, vocabulary=9, characters=7),
        tasks=TASKS,
    ).eval()


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, LONGEST + 1, ROWS)
    ids = generator.integers(1, 7, (ROWS, LONGEST, 5))
    return ids * (np.arange(LONGEST) < lengths[:, None])[:, :, None]


@pytest.fixture(scope="module")
def bundle(model: MultiTaskModel, samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("taggings") / "bundle"
    manifest = export(
        model.freeze(),
        path,
        reference=model,
        samples=samples,
        about=About(Provenance(coterie="0.0.0")),
    )
    assert manifest.parity.max_abs_error < 1e-5
    return path


def run(path: Path, **feeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores, probabilities = session.run(["scores", "probabilities"], feeds)
    return scores, probabilities


@pytest.mark.parametrize("rows", [0, 1, ROWS])
@pytest.mark.parametrize("length", range(1, LONGEST + 1))
def test_a_task_graph_answers_each_word(
    bundle: Path, model: MultiTaskModel, samples: np.ndarray, rows: int, length: int
) -> None:
    inputs = samples[:rows, :length]
    scores, probabilities = run(bundle / "task1.onnx", tokens=inputs)
    assert scores.shape == probabilities.shape == (rows, length, 5)
    wanted = model.freeze().scores(1, torch.from_numpy(inputs))
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    np.testing.assert_allclose(probabilities, torch.softmax(wanted, dim=-1), atol=1e-5)


@pytest.mark.parametrize(("questions", "length"), [(0, 3), (1, 1), (9, LONGEST)])
def test_the_router_answers_each_word_of_each_question(
    bundle: Path, model: MultiTaskModel, samples: np.ndarray, questions: int, length: int
) -> None:
    generator = np.random.default_rng(questions)
    inputs = samples[:, :length]
    row, task = generator.integers(0, ROWS, questions), generator.integers(0, len(TASKS), questions)
    scores, probabilities = run(bundle / "router.onnx", tokens=inputs, row=row, task=task)
    wanted = model.freeze()(*(torch.from_numpy(array) for array in (inputs, row, task)))
    assert scores.shape == probabilities.shape == (questions, length, 5)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    for question, number in enumerate(task):
        own = torch.softmax(wanted[question, :, : WIDTHS[number]], dim=-1)
        np.testing.assert_allclose(probabilities[question, :, : WIDTHS[number]], own, atol=1e-5)


def test_a_task_alone_is_one_file(bundle: Path, samples: np.ndarray, tmp_path: Path) -> None:
    export_standalone(bundle, "task4", tmp_path / "alone.onnx")
    wanted, _ = run(bundle / "task4.onnx", tokens=samples)
    np.testing.assert_array_equal(run(tmp_path / "alone.onnx", tokens=samples)[0], wanted)


def test_a_word_that_is_answered_differently_fails_the_export(
    model: MultiTaskModel, samples: np.ndarray, tmp_path: Path
) -> None:
    def other(inputs: torch.Tensor, row: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        scores = model(inputs, row, task)
        scores[:, -1] += 1e-3 * (scores.shape[1] == 1)  # of sentences of one word only
        return scores

    with pytest.raises(ParityError, match="differs from the torch model"):
        export(
            model.freeze(),
            tmp_path / "bundle",
            reference=other,
            samples=samples,
            about=About(Provenance(coterie="0.0.0")),
        )


def test_dense_layers_shared_and_own_answer_as_torch_does(samples: np.ndarray, tmp_path: Path) -> None:
    lstm = {"kind": "lstm", "width": 3, "bidirectional": True, "pool": "none", "dense": True}
    stages = [
        {"kind": "hard", "block": {"kind": "word_chars", "width": 6, "characters": 4, "filters": 4}},
        {"kind": "hard", "block": lstm},
        {"kind": "specific", "block": {**lstm, "width": 2}},
    ]
    torch.manual_seed(0)
    model = build_model(
        load_config(ModelConfig, source={"stages": stages}),
        input=TensorSpec(name="tokens", dtype="int64", shape=(None, None, 5)),
        shape=InputShape(dims=(None, 5), tokens=True, vocabulary=9, characters=7),
        tasks=TASKS,
    ).eval()
    manifest = export(
        model.freeze(),
        tmp_path / "bundle",
        reference=model,
        samples=samples,
        about=About(Provenance(coterie="0.0.0")),
    )
    assert model.head.size == 10 + 6 + 4
    assert manifest.parity.max_abs_error < 1e-5

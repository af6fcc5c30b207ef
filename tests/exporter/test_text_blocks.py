"""Text models of every block on sequences: their graphs answer like torch, for any length and any rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.exporter.conftest import publish
from tests.exporter.making import task

from coterie.runtime.manifest import TensorSpec
from coterie.training import ModelConfig, build_model
from coterie.training.blocks import InputShape
from coterie.training.frozen import FrozenModel
from coterie.training.yaml_config import load_config

WORDS = ("[PAD]", "[UNK]", ".", "!", *(f"w{number}" for number in range(36)))
SENTENCES = {"count": 3, "words": 4}

STAGES: dict[str, list[dict[str, Any]]] = {
    "words": [
        {"kind": "hard", "name": "words", "block": {"kind": "words", "width": 6}},
        {
            "kind": "hard",
            "name": "lstm",
            "block": {"kind": "lstm", "width": 5, "bidirectional": True, "pool": "none"},
        },
        {"kind": "soft", "block": {"kind": "transformer", "width": 8, "layers": 1, "pool": "none"}},
        {"kind": "shared_private", "block": {"kind": "attention_pool"}},
    ],
    "sentences": [
        {"kind": "hard", "name": "words", "block": {"kind": "words", "width": 6, "sentences": SENTENCES}},
        {"kind": "specific", "name": "inner", "block": {"kind": "lstm", "width": 5, "pool": "none"}},
        {"kind": "hard", "name": "outer", "block": {"kind": "lstm", "width": 4, "pool": "last"}},
        {"kind": "specific", "name": "cnn", "block": {"kind": "textcnn", "filters": 3, "kernels": [2]}},
    ],
    "han": [
        {"kind": "hard", "name": "words", "block": {"kind": "words", "width": 6, "sentences": SENTENCES}},
        {"kind": "specific", "block": {"kind": "han", "width": 4}},
    ],
    "views": [
        {
            "kind": "views",
            "views": {
                "bag": {"kind": "ngram_bag", "width": 3, "buckets": 16},
                "words": [
                    {"kind": "words", "width": 6, "sentences": SENTENCES},
                    {"kind": "lstm", "width": 5, "pool": "max"},
                    {"kind": "lstm", "width": 4},
                ],
            },
        },
        {"kind": "specific", "block": {"kind": "linear", "width": 4}},
    ],
}


def texts(rows: int, length: int) -> np.ndarray:
    """Texts of unlike lengths, one in five words the end of a sentence."""
    generator = np.random.default_rng(length)
    tokens = generator.integers(2, len(WORDS), (rows, length))
    tokens[generator.random(tokens.shape) < 0.2] = 2
    ends = generator.integers(1, length + 1, rows)
    ends[:1] = length
    return np.where(np.arange(length) < ends[:, None], tokens, 0)


def frozen_of(name: str) -> FrozenModel:
    config = load_config(ModelConfig, source={"stages": STAGES[name]})
    model = build_model(
        config,
        input=TensorSpec(name="tokens", dtype="int64", shape=(None, None)),
        shape=InputShape(dims=(None,), tokens=True, vocabulary=len(WORDS), words=WORDS),
        tasks=[task("a"), task("b", width=3), task("c")],
    )
    return model.eval().freeze()


@pytest.mark.parametrize("name", STAGES)
def test_the_graphs_answer_like_torch(name: str, tmp_path: Path) -> None:
    model = frozen_of(name)
    manifest = publish(model, tmp_path / "bundle", samples=texts(21, 11))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    files = {"router": "router.onnx", "graph": manifest.tasks[1].graph}
    sessions = {
        key: ort.InferenceSession(str(tmp_path / "bundle" / file), options) for key, file in files.items()
    }
    for length, rows, questions in ((1, 1, 1), (30, 7, 20), (2, 5, 0), (5, 0, 0)):
        tokens = texts(rows, length)
        generator = np.random.default_rng(length)
        row, asked = generator.integers(0, max(rows, 1), questions), generator.integers(0, 3, questions)
        feeds = {"tokens": tokens, "row": row, "task": asked}
        (scores,) = sessions["router"].run(["scores"], feeds)
        wanted = model(torch.from_numpy(tokens), torch.from_numpy(row), torch.from_numpy(asked)).numpy()
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
        (scores,) = sessions["graph"].run(["scores"], {"tokens": tokens})
        wanted = model.scores(1, torch.from_numpy(tokens)).numpy()
        assert scores.shape == (rows, 3)
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)

"""Trained stages that compute every task's state at once become graphs that answer as they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporter.conftest import publish
from tests.exporter.models import task

from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import Manifest, TensorSpec
from coterie.training import ModelConfig, MultiTaskModel, build_model
from coterie.training.blocks import InputShape

LINEAR = {"kind": "linear", "width": 8, "activation": "tanh"}
LSTM = {"kind": "lstm", "width": 4, "pool": "none"}
TASKS = (task("a"), task("b", width=3))
FEATURES = TensorSpec(name="inputs", dtype="float32", shape=(None, 8))
SEQUENCES = TensorSpec(name="inputs", dtype="float32", shape=(None, None, 4))
MODELS = {
    "gates": (
        FEATURES,
        InputShape(dims=(8,)),
        [
            {"kind": "input_gated", "gate": "noisy_topk", "experts": 4, "block": LINEAR},
            {"kind": "input_gated", "gate": "dselect_k", "experts": 5, "one_gate": True, "block": LINEAR},
            {"kind": "ple", "levels": [LINEAR, LINEAR], "shared": 2, "own": 2},
            {"kind": "stitched", "layers": [LINEAR, LINEAR], "subspaces": 2, "skip": True},
        ],
    ),
    "columns": (
        SEQUENCES,
        InputShape(dims=(None, 4)),
        [
            {"kind": "stitched", "layers": [LSTM]},
            {"kind": "input_gated", "experts": 2, "block": {**LSTM, "pool": "mean"}},
        ],
    ),
}


def trained(name: str) -> tuple[MultiTaskModel, np.ndarray]:
    """A model with weights far from the start's, and inputs; sequences have unlike lengths."""
    spec, shape, stages = MODELS[name]
    config = ModelConfig.model_validate({"stages": stages})
    model = build_model(config, input=spec, shape=shape, tasks=TASKS).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn((21, *(6 if size is None else size for size in spec.shape[1:])), generator=generator)
    if inputs.dim() == 3:
        inputs[torch.arange(6) >= torch.arange(21).unsqueeze(1) % 6 + 1] = 0
    return model, inputs.numpy()


def published(name: str, folder: Path) -> Manifest:
    model, inputs = trained(name)
    return publish(model.freeze(), folder, reference=model, samples=inputs)


@pytest.mark.parametrize("name", MODELS)
def test_every_graph_answers_as_the_model_in_training_does(name: str, tmp_path: Path) -> None:
    # The export asks the graphs for no rows, one, and odd and even numbers of them, and for mixed questions.
    manifest = published(name, tmp_path / "bundle")
    assert manifest.parity.graphs == len(TASKS) + 1
    assert manifest.parity.max_abs_error < 1e-5
    dense = [stage for stage in manifest.plan.stages if stage.dense]
    assert dense
    for stage in dense:
        assert len(manifest.tensors[stage.blocks[0].name]) > 3


def test_a_column_that_no_block_computes_is_refused(tmp_path: Path) -> None:
    model, inputs = trained("gates")
    frozen = model.freeze()
    stage = frozen.plan.stages[0].model_copy(update={"columns": (0, 3)})
    plan = frozen.plan.model_copy(update={"stages": (stage, *frozen.plan.stages[1:])})
    with pytest.raises(ExportError, match=r"has 4 columns, its block's results are \(2, 8\)"):
        publish(replace(frozen, plan=plan), tmp_path / "bundle", reference=model, samples=inputs)

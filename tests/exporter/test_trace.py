"""An architecture is traced once, however many blocks have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.exporter.conftest import publish
from tests.exporter.making import Maker, all_of, task

from coterie.runtime.manifest import TensorSpec
from coterie.training.blocks import InputShape, LinearConfig


def test_blocks_of_one_architecture_are_traced_once_and_bound_to_their_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    tasks = tuple(task(f"t{index}") for index in range(12))
    layer, wide = LinearConfig(width=8, activation="tanh"), InputShape(dims=(8,))
    model = (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 5)))
        .bank("trunk", "hard", layer.build(InputShape(dims=(5,))), all_of(tasks))
        .bank("clusters", "cluster", layer.build(wide), [{index % 4: 1.0} for index in range(12)])
        .bank("experts", "gated", layer.build(wide), [{index % 7: 0.5, 7: 1.0} for index in range(12)])
        .bank(
            "others", "cluster", LinearConfig(width=8).build(wide), [{index % 2: 1.0} for index in range(12)]
        )
        .heads(8)
    )
    traced: list[Any] = []
    export = torch.onnx.export

    def counting(*arguments: Any, **options: Any) -> Any:
        traced.append(arguments)
        return export(*arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", counting)
    # That each block answers with its own weights is what the export itself checks.
    publish(model, tmp_path / "bundle")
    assert len(traced) == 3  # the trunk's shape, the cluster layer's and the experts', another activation

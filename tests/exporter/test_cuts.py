"""What is not needed is not there: unused blocks, equal tensors, what columns hardly take from each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporter.conftest import Exported, publish
from tests.training.making import LINEAR, model_of, tasks

from coterie.exporter._cut_columns import cut_columns
from coterie.exporter._verify import Reference
from coterie.runtime import compare_bundles, load, load_bundle
from coterie.runtime.errors import ExportError
from coterie.training import MultiTaskModel
from coterie.training.stages import StitchedStage

Get = Callable[[str], Exported]

FLOAT = 4


def test_the_sizes_of_all_cuts_add_up(exported: Get) -> None:
    bundle = exported("features")
    sizes = bundle.manifest.sizes
    expert = sum(tensor.numel() for tensor in bundle.model.banks[2].tensors[0].values()) * FLOAT
    assert sizes["cut_experts"] == 3 * expert  # eight trained, five used
    cuts = sum(size for name, size in sizes.items() if name.startswith("cut_"))
    assert sizes["weights"] + cuts == sizes["dense"]


def test_what_equals_another_is_counted(exported: Get) -> None:
    sizes = exported("shared").manifest.sizes
    assert sizes["cut_equal"] == (8 * 2 + 2) * FLOAT  # one head


def test_an_expert_that_one_task_uses_is_one_block(exported: Get) -> None:
    bundle = exported("textcnn")
    stage = bundle.manifest.plan.stage("experts")
    alone = [block for block, users in stage.users().items() if users == 1]
    assert alone
    for block in alone:
        uses = bundle.manifest.tensors[stage.blocks[block].name]
        assert sum(int(np.prod(use.shape)) for use in uses) == stage.blocks[block].parameters
        others = [
            other for name, other in bundle.manifest.tensors.items() if name != stage.blocks[block].name
        ]
        assert not {use.tensor for use in uses} & {use.tensor for other in others for use in other}


def test_blocks_of_columns_that_no_task_depends_on_are_left_out(exported: Get) -> None:
    bundle = exported("stitched")
    stage = bundle.manifest.plan.stage("columns")
    # The last subspace of the last layer is read by nobody: task "e" reads the first layer, "d" the second.
    assert stage.trained_blocks == 30
    assert len(stage.blocks) < 30
    left = (stage.trained_parameters or 0) - sum(block.parameters for block in stage.blocks)
    assert left > 0
    assert bundle.manifest.sizes["cut_columns"] == left * FLOAT


def test_a_task_graph_has_the_columns_that_the_task_depends_on(exported: Get) -> None:
    bundle = exported("stitched")
    stage = bundle.manifest.plan.stage("columns")
    for entry, used in zip(bundle.manifest.tasks, stage.uses, strict=True):
        content = (bundle.folder / entry.graph).read_bytes()
        there = {at for at, block in enumerate(stage.blocks) if f"{block.name}/".encode() in content}
        assert there == set(used)
    assert len({len(used) for used in stage.uses}) > 1


def columns() -> MultiTaskModel:
    """Three columns of two layers: strong shares on the diagonal, middling and tiny ones beside it."""
    torch.manual_seed(3)
    model = model_of([{"kind": "stitched", "layers": [LINEAR, LINEAR]}], tasks(3)).eval()
    (stage, _) = model.each_stage()
    assert isinstance(stage, StitchedStage)
    with torch.no_grad():
        for layer, alpha in enumerate(stage.alphas()):
            alpha.copy_(torch.full((3, 3), 0.001 * (layer + 1)).fill_diagonal_(1.0))
        stage.alphas()[0][0, 1] = 0.4
    return model


def measure_like(model: MultiTaskModel, inputs: torch.Tensor) -> Callable[[Reference], dict[str, float]]:
    """Score a model by how near its answers are to another's, from 0 to 1."""
    wanted = _answers(model, inputs)

    def measure(answer: Reference) -> dict[str, float]:
        errors = (_answers(answer, inputs) - wanted).abs().amax(dim=(1, 2))
        return {f"task {number}": 1.0 - float(error) for number, error in enumerate(errors)}

    return measure


@torch.no_grad()
def _answers(model: Reference, inputs: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(inputs))
    return torch.stack([model(inputs, rows, torch.full_like(rows, number)) for number in range(3)])


def test_as_many_shares_are_cut_as_no_task_loses_too_much_by(tmp_path: Path) -> None:
    model, inputs = columns(), torch.randn(30, 6)
    measure = measure_like(model, inputs)
    cut, report = cut_columns(model, measure, 1.0)
    assert report.of == 18
    assert report.cut == 11  # all but the diagonals and the one that matters
    assert report.threshold == pytest.approx(0.4)
    assert 0 < max(report.drops.values()) <= 1.0
    assert max(measure(model).values()) == 1.0, "the model itself was changed"

    everything, all_of_them = cut_columns(model, measure, 100.0)
    assert all_of_them.cut == 12
    assert all_of_them.drops["task 0"] > 1.0
    _, nothing = cut_columns(model, measure, 0.0)
    assert nothing.cut == 0

    before = publish(model.freeze(), tmp_path / "whole", reference=model, samples=inputs.numpy())
    options = {"reference": cut, "samples": inputs.numpy(), "column_cut": report}
    manifest = publish(cut.freeze(), tmp_path / "cut", **options)
    assert manifest.column_cut == report
    assert [len(used) for used in before.plan.stages[0].uses] == [6, 6, 6]
    assert [len(used) for used in manifest.plan.stages[0].uses] == [3, 2, 2]
    assert manifest.sizes["standalone"] < before.sizes["standalone"]
    changes = compare_bundles(load_bundle(tmp_path / "whole"), load_bundle(tmp_path / "cut"))
    stages = [change.stages[0] for change in changes]
    assert [len(stage.removed) for stage in stages] == [3, 4, 4]
    # Of what a task still depends on: its column took 0.002 of others' at most, and takes nothing now.
    assert [stage.mixture for stage in stages] == pytest.approx([0.002] * 3, abs=1e-6)
    scores = load(tmp_path / "cut").predict("task 0", inputs.numpy()).scores
    np.testing.assert_allclose(scores, _answers(cut, inputs)[0], atol=1e-5)
    assert [len(used) for used in everything.plan().stages[0].uses] == [2, 2, 2]


@pytest.mark.parametrize("allowed", [-1.0, float("nan")])
def test_a_loss_that_is_no_number_is_refused(allowed: float) -> None:
    with pytest.raises(ExportError, match="give 0 or more"):
        cut_columns(columns(), lambda _: {}, allowed)


def test_a_model_without_columns_has_none_to_cut() -> None:
    model = model_of([{"kind": "hard", "block": LINEAR}], tasks(2))
    with pytest.raises(ExportError, match="no columns that take from each other"):
        cut_columns(model, lambda _: {}, 1.0)

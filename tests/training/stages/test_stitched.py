"""Stitched columns: cross-stitch units, subspaces, skip connections, and tasks at their own depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.making import LINEAR, model_of, tasks
from torch import Tensor

from coterie.runtime.errors import ConfigError
from coterie.training.blocks import ConvConfig, InputShape
from coterie.training.stages import Site, StitchedConfig
from coterie.training.stages._columns import ColumnsStage
from coterie.training.stages._stitched_columns import Stitched

NAMES = ("task 0", "task 1", "task 2")


def stage_of(
    shape: tuple[int | None, ...] = (6,), number: int = 3, **options: Any
) -> tuple[ColumnsStage, Stitched]:
    """A stage of two layers for three tasks, its mixtures drawn at random."""
    torch.manual_seed(0)
    config = StitchedConfig.model_validate({"layers": [LINEAR, LINEAR], **options})
    site = Site(name="columns", tasks=tuple(tasks(number)), shape=InputShape(dims=shape))
    assert not config.mistakes(site)
    stage, _ = config.build(site)
    assert isinstance(stage, ColumnsStage)
    block = stage.block
    assert isinstance(block, Stitched)
    with torch.no_grad():
        for mixture in (*block.alpha, *([] if block.beta is None else [block.beta])):
            mixture.copy_(torch.randn_like(mixture))
    return stage.eval(), block


def run_layer(block: Stitched, layer: int, number: int, states: Tensor) -> Tensor:
    bank = block.layers[layer]
    return bank.run(states, torch.full((len(states),), number))


def test_a_cross_stitch_unit_mixes_the_columns_after_each_layer() -> None:
    _, block = stage_of()
    inputs = torch.randn(4, 6)
    states = [inputs] * 3
    for layer in range(2):
        results = [run_layer(block, layer, column, state) for column, state in enumerate(states)]
        alpha = block.alpha[layer]
        states = [sum(alpha[i, j] * results[j] for j in range(3)) for i in range(3)]
    torch.testing.assert_close(block(inputs), torch.stack(states, dim=1))


def test_a_sluice_mixes_subspaces_and_reads_all_layers() -> None:
    _, block = stage_of(number=2, subspaces=2, skip=True)
    inputs = torch.randn(4, 6)
    states, layers = [inputs] * 2, []
    for layer in range(2):
        results = [run_layer(block, layer, at, states[at // 2]) for at in range(4)]
        alpha = block.alpha[layer]
        mixed = [sum(alpha[i, j] * results[j] for j in range(4)) for i in range(4)]
        states = [torch.cat(mixed[:2], dim=1), torch.cat(mixed[2:], dim=1)]
        layers.append(states)
    wanted = [sum(block.beta[task, layer] * layers[layer][task] for layer in range(2)) for task in range(2)]
    assert wanted[0].shape == (4, 12)
    torch.testing.assert_close(block(inputs), torch.stack(wanted, dim=1))


def test_mixtures_begin_as_the_paper_says() -> None:
    def mixtures(**options: Any) -> tuple[Tensor, Tensor]:
        model = model_of([{"kind": "stitched", "layers": [LINEAR] * 3, "skip": True, **options}], tasks(4))
        named = dict(model.named_parameters())
        return named["stages.0.block.alpha.0"], named["stages.0.block.beta"]

    alpha, beta = mixtures(alpha="balanced", beta="balanced")
    torch.testing.assert_close(alpha, torch.full((4, 4), 0.25))
    torch.testing.assert_close(beta, torch.full((4, 3), 1 / 3))
    alpha, beta = mixtures()
    torch.testing.assert_close(alpha.diagonal(), torch.full((4,), 0.9))
    torch.testing.assert_close(alpha.sum(1), torch.ones(4))
    torch.testing.assert_close(beta[2], torch.tensor([0.05, 0.05, 0.9]))


def test_low_supervision_reads_one_column_at_several_depths() -> None:
    stage, block = stage_of(columns="one", depth={"task [01]": 1})
    assert not len(block.alpha)
    inputs = torch.randn(4, 6)
    first = run_layer(block, 0, 0, inputs)
    result = block(inputs)
    stitches = stage.plan().stitches
    assert stitches is not None
    assert stitches.reads == (((0, 0, 1.0),), ((0, 0, 1.0),), ((1, 0, 1.0),))
    assert stage.plan().uses == ((0,), (0,), (0, 1))
    torch.testing.assert_close(result[:, 0], first)
    torch.testing.assert_close(result[:, 1], run_layer(block, 1, 0, first))


def test_one_column_may_be_read_by_a_mixture_of_its_layers() -> None:
    stage, block = stage_of(columns="one", skip=True)
    inputs = torch.randn(4, 6)
    first = run_layer(block, 0, 0, inputs)
    second = run_layer(block, 1, 0, first)
    stitches = stage.plan().stitches
    assert stitches is not None
    assert [[(layer, column) for layer, column, _ in read] for read in stitches.reads] == [
        [(0, 0), (1, 0)]
    ] * 3
    for task in range(3):
        wanted = block.beta[task, 0] * first + block.beta[task, 1] * second
        torch.testing.assert_close(block(inputs)[:, task], wanted)


def test_subspaces_that_weigh_apart_cost_nothing() -> None:
    stage, block = stage_of(number=1, subspaces=2, orthogonality=0.5)
    asked = torch.ones(1, 1, dtype=torch.bool)
    weights = [layer.weights["layer/weight"] for layer in block.layers]
    wanted = 0.5 * sum((weight[0] @ weight[1].T).square().sum() for weight in weights)
    assert block.auxiliary(asked).item() == pytest.approx(wanted.item())
    with torch.no_grad():
        for weight in weights:
            half = weight.shape[2] // 2
            weight[0, :, :half], weight[1, :, half:] = 0, 0
    assert block.auxiliary(asked) == 0
    assert stage.train().penalty() == 0


def test_columns_of_sequences_keep_padding_at_zeros() -> None:
    lstm = {"kind": "lstm", "width": 3, "bidirectional": True, "pool": "none"}
    _, block = stage_of((None, 4), layers=[lstm, lstm], subspaces=2, skip=True)
    sequences = torch.randn(2, 5, 4)
    sequences[1, 3:] = 0
    result = block(sequences)
    assert result.shape == (2, 3, 5, 12)
    assert (result[1, :, 3:] == 0).all()
    assert (result[1, :, :3] != 0).all()
    longer = block(torch.nn.functional.pad(sequences, (0, 0, 0, 6)))
    torch.testing.assert_close(longer[:, :, :5], result)
    torch.testing.assert_close(block(sequences[1:, :3])[0], result[1, :, :3])


def test_columns_of_images_are_joined_by_channel() -> None:
    conv = ConvConfig(filters=(2,), pool=1, flatten=False).model_dump()
    _, block = stage_of((1, 4, 4), layers=[conv, conv], subspaces=2)
    assert block(torch.randn(2, 1, 4, 4)).shape == (2, 3, 4, 4, 4)


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"depth": {"task 1": 3}}, "depth.task 1: there is no layer 3, but 2"),
        ({"depth": {"pos*": 1}}, "depth.pos*: no task is called that; there are task 0, task 1, task 2"),
        ({"depth": {"task 1": 1}, "skip": True}, "depth: a task reads all layers with skip: true"),
        ({"orthogonality": 0.1}, "orthogonality: is between subspaces; set subspaces to 2"),
        (
            {"layers": [LINEAR, {**LINEAR, "width": 3}], "skip": True},
            "layers: what tasks read differs in size: make those layers' results alike",
        ),
        ({"layers": [LINEAR, {"kind": "conv"}]}, "layers.1: block 'conv' takes images"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model_of([{"kind": "stitched", "layers": [LINEAR, LINEAR], **options}], tasks(3))
    assert caught.value.problems[0].startswith(f"model.stages.0.{mistake}")


def test_blocks_that_no_task_depends_on_are_left_out_of_the_plan() -> None:
    stage, block = stage_of(subspaces=2, depth={"task 2": 1})
    with torch.no_grad():
        block.alpha[0].zero_()
        block.alpha[0].fill_diagonal_(1.0)
        block.alpha[0][4, 3] = 0.5  # the third column's first subspace takes of the second column's second
        block.alpha[1].zero_()
        block.alpha[1].fill_diagonal_(2.0)
        block.alpha[1][0, 1] = 0.25
    plan = stage.plan()
    names = [{plan.blocks[at].name for at in used} for used in plan.uses]
    layer = "columns/{}/{}".format
    assert names[0] == {layer(0, 0), layer(0, 1), layer(1, 0), layer(1, 1)}
    assert names[1] == {layer(0, 2), layer(0, 3), layer(1, 2), layer(1, 3)}
    assert names[2] == {layer(0, 3), layer(0, 4), layer(0, 5)}
    assert plan.trained_blocks == 12
    assert len(plan.blocks) == 10
    assert plan.trained_parameters == 6 * (6 * 6 + 6) + 6 * (12 * 6 + 6)
    assert [block.source for block in plan.blocks] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_subspace_that_takes_nothing_is_zeros() -> None:
    model = model_of([{"kind": "stitched", "layers": [LINEAR], "subspaces": 2}], tasks(2)).eval()
    with torch.no_grad():
        dict(model.named_parameters())["stages.0.block.alpha.0"][1].zero_()
    inputs, row, task = torch.randn(4, 6), torch.arange(4), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(model.freeze()(inputs, row, task), model(inputs, row, task))

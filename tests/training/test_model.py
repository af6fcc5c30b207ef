from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.training.making import (
    LINEAR,
    count_rows,
    features,
    model_of,
    no_moments,
    questions,
    slow_answer,
    task,
    tasks,
)

from coterie.runtime.errors import ConfigError
from coterie.training import ModelConfig, MultiTaskModel, build_model
from coterie.training.blocks import InputShape, Standardise
from coterie.training.draws import LeaveOneOutDraw
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.optimise import make_optimizer, set_rates
from coterie.training.moments import Moments
from coterie.training.yaml_config import load_config

STAGES: dict[str, dict[str, Any]] = {
    "hard": {"kind": "hard", "block": LINEAR},
    "specific": {"kind": "specific", "block": LINEAR},
    "cluster": {"kind": "cluster", "clusters": 2, "warmup": 0, "start": 0, "block": LINEAR},
    "gated": {"kind": "gated", "experts": 3, "block": LINEAR},
}
ORDERS = list(itertools.permutations(STAGES))
SPECS = [task("a"), task("b", width=3), task("c", "multilabel", 2), task("d", "regression", 1), task("e")]


def train_steps(model: MultiTaskModel, steps: int = 2, *, epoch: int = 0) -> None:
    """Make steps as the trainer does, with every kind of task."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    moments, loss = Moments(optimizer), QuestionLoss(SPECS, model.head.scale)
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(4)
    for step in range(steps):
        row, number = questions(24, rows=7, number_of_tasks=len(SPECS), seed=step)
        target = torch.randint(2, (24, 2)).float()
        draw = LeaveOneOutDraw(generator, 24, samples=2)
        scores = model(torch.randn(7, 6), row.repeat(2), number.repeat(2), draw)
        losses, _ = loss(scores, target.repeat(2, 1), number.repeat(2))
        losses = losses.reshape(2, -1)
        objective = losses[0].mean() + model.penalty() + draw.surrogate(losses, torch.ones(24), number)
        optimizer.zero_grad()
        objective.backward()
        assert all(each.grad is None or torch.isfinite(each.grad).all() for each in model.parameters())
        optimizer.step()
        for stage in model.each_stage():
            stage.after_step(epoch, step, moments)


def assert_frozen_alike(model: MultiTaskModel) -> None:
    """The frozen model, one question at a time, answers as the model does."""
    model.eval()
    torch.manual_seed(9)
    inputs = torch.randn(4, 6)
    row, number = questions(25, rows=4, number_of_tasks=len(SPECS), seed=8)
    with torch.no_grad():
        found = model(inputs, row, number)
    frozen = model.freeze()
    torch.testing.assert_close(frozen(inputs, row, number), found, atol=1e-5, rtol=1e-5)
    assert frozen.plan == model.plan()
    for stage, bank in zip(frozen.plan.stages, frozen.banks, strict=True):
        assert len(stage.blocks) == len(bank.tensors)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_stages_compose_in_any_order(order: tuple[str, ...]) -> None:
    model = model_of([STAGES[kind] for kind in order], SPECS)
    with torch.no_grad():
        model.head.scale[3, 0], model.head.shift[3, 0] = 3.0, -2.0
    assert_frozen_alike(model)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    train_steps(model)
    assert any(not torch.equal(each, before[name]) for name, each in model.named_parameters())
    assert_frozen_alike(model)
    for stage in model.cluster_stages():
        stage.freeze_assignment()
    assert_frozen_alike(model)
    train_steps(model, epoch=1)
    assert_frozen_alike(model)


@pytest.mark.parametrize("mode", ["shadow", "literal"])
def test_a_cluster_layer_freezes_to_what_it_computes_with_in_every_phase(mode: str) -> None:
    cluster = {
        "kind": "cluster",
        "clusters": 2,
        "mode": mode,
        "start": 1,
        "warmup": 1,
        "freeze_after": 3,
        "block": LINEAR,
    }
    model = model_of([STAGES["hard"], cluster], SPECS)
    blocks = []
    for epoch in range(4):
        for stage in model.each_stage():
            stage.begin_epoch(epoch, no_moments())
        train_steps(model, epoch=epoch)
        assert_frozen_alike(model)
        blocks.append(len(model.plan().stages[1].blocks))
    assert blocks == [1, 5, 2, 2]


@pytest.mark.parametrize("order", ORDERS[::5], ids="-".join)
def test_a_questions_answer_does_not_depend_on_the_others(order: tuple[str, ...]) -> None:
    model = model_of([STAGES[kind] for kind in order], SPECS).eval()
    inputs, (row, number) = torch.randn(4, 6), questions(15, rows=4, number_of_tasks=5)
    together = model(inputs, row, number)
    one = torch.zeros(1, dtype=torch.int64)
    apart = slow_answer(lambda t, x: model(x, one, torch.tensor([t])), inputs, row, number)
    torch.testing.assert_close(together, apart)
    permutation = torch.randperm(15)
    torch.testing.assert_close(model(inputs, row[permutation], number[permutation]), together[permutation])


@pytest.mark.parametrize("order", ORDERS[::5], ids="-".join)
def test_no_questions_are_legal(order: tuple[str, ...]) -> None:
    model = model_of([STAGES[kind] for kind in order], SPECS).eval()
    nothing = torch.zeros(0, dtype=torch.int64)
    assert model(torch.zeros(0, 6), nothing, nothing).shape == (0, 3)


def test_stages_before_the_first_of_a_tasks_own_run_once_for_an_input() -> None:
    model = model_of([STAGES["hard"], STAGES["cluster"], STAGES["specific"]], tasks(12)).eval()
    model.cluster_stages()[0].freeze_assignment()
    rows = [count_rows(stage.bank) for stage in model.each_stage()[:3]]
    model(torch.randn(2, 6), torch.arange(24) % 2, torch.arange(24) // 2)
    assert [sum(each) for each in rows] == [2, 4, 24]


def test_the_same_seed_makes_the_same_model_and_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (model_of([STAGES["gated"]], SPECS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_a_first_block_comes_before_the_stages_and_is_frozen_with_them() -> None:
    first = Standardise(torch.full((6,), 3.0), torch.full((6,), 0.5))
    model = model_of([STAGES["hard"]], SPECS, first=first)
    assert [stage.name for stage in model.plan().stages] == ["input", "hard", "head"]
    assert_frozen_alike(model)
    plain = model_of([STAGES["hard"]], SPECS)
    inputs, (row, number) = torch.randn(3, 6), questions(5, rows=3, number_of_tasks=5)
    torch.testing.assert_close(model(inputs, row, number), plain((inputs - 3) * 0.5, row, number))


def test_a_later_cluster_layer_waits_for_the_earlier_ones() -> None:
    def layer(**options: object) -> dict[str, Any]:
        return {"kind": "cluster", "clusters": 2, "block": LINEAR, **options}

    model = model_of([layer(warmup=3), layer(warmup=1), layer(warmup=2, start=0), layer()], tasks(4))
    assert [stage.start for stage in model.cluster_stages()] == [0, 3, 0, 4]
    names = [stage.name for stage in model.cluster_stages()]
    assert names == ["cluster1", "cluster2", "cluster3", "cluster4"]


@pytest.mark.parametrize(
    ("stages", "paths"),
    [
        ([{"kind": "hard", "block": {"kind": "conv"}}], ["model.stages.0.block: "]),
        (
            [STAGES["hard"], {"kind": "gated", "experts": 2, "block": {"kind": "textcnn"}}],
            ["model.stages.1.block: "],
        ),
        (
            [{"kind": "hard", "block": {"kind": "linear", "width": 4, "residual": True}}],
            ["model.stages.0.block: a residual"],
        ),
        (
            [
                STAGES["hard"],
                {**STAGES["cluster"], "max_clusters": 9},
                {**STAGES["cluster"], "name": "head"},
                {**STAGES["cluster"], "freeze_after": 2, "warmup": 2},
                {"kind": "hard", "block": {"kind": "conv"}},
            ],
            [
                "model.stages.1.max_clusters: ",
                "model.stages.2.name: ",
                "model.stages.3.freeze_after: ",
                "model.stages.4.block: ",
            ],
        ),
        (
            [{**STAGES["hard"], "name": "x"}, {**STAGES["gated"], "name": "x"}],
            ["model.stages.1.name: 'x' is taken"],
        ),
    ],
)
def test_impossible_stacks_are_refused_with_every_mistakes_path(
    stages: list[dict[str, Any]], paths: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        model_of(stages, SPECS)
    assert len(caught.value.problems) == len(paths)
    for problem, path in zip(caught.value.problems, paths, strict=True):
        assert problem.startswith(path)


def test_heads_need_vectors() -> None:
    image = {"kind": "conv", "filters": [2], "flatten": False}
    config = load_config(ModelConfig, source={"stages": [{"kind": "hard", "block": image}]})
    with pytest.raises(ConfigError, match=r"model\.head"):
        build_model(config, input=features(6), shape=InputShape(dims=(1, 4, 4)), tasks=SPECS)


# ---- the optimiser


def options(**trainer: object) -> Any:
    from coterie.training import TrainerConfig

    return load_config(TrainerConfig, source=trainer)


def test_each_stage_learns_at_its_own_rate_and_gates_at_theirs() -> None:
    stages = [{**STAGES["hard"], "lr": 0.5, "weight_decay": 0.2}, {**STAGES["gated"], "weight_decay": 0.0}]
    config = load_config(ModelConfig, source={"stages": stages, "head": {"lr": 0.25}})
    model = model_of(stages, SPECS)
    optimizer = make_optimizer(
        model, options(lr=0.1, gate_lr=0.7, weight_decay=0.3, optimizer="adamw"), config
    )
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {
        "stages.0.bank.weights.layer/weight": (0.5, 0.2),
        "stages.0.bank.weights.layer/bias": (0.5, 0.0),
        "stages.1.gate.logits": (0.7, 0.0),
        "stages.1.gate.mixture": (0.1, 0.0),
        "stages.1.bank.weights.layer/weight": (0.1, 0.0),
        "stages.1.bank.weights.layer/bias": (0.1, 0.0),
        **{f"stages.2.weights.{index}": (0.25, 0.3) for index in range(3)},
        **{f"stages.2.biases.{index}": (0.25, 0.0) for index in range(3)},
    }


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])]
)
def test_rates_follow_the_schedule(schedule: str, wanted: list[float]) -> None:
    config = load_config(ModelConfig, source={"stages": [STAGES["gated"]]})
    settings = options(lr=0.1, gate_lr=0.7, schedule=schedule)
    optimizer = make_optimizer(model_of([STAGES["gated"]], SPECS), settings, config)
    start = [group["lr"] for group in optimizer.param_groups]
    for done, factor in zip((0.0, 0.5, 1.0), wanted, strict=True):
        set_rates(optimizer, settings, done)
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([factor * lr for lr in start])

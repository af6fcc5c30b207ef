"""A budget for what a task uses: paid for while training, kept at the freeze."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.making import LINEAR, features, run_config, tasks

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.training import ModelConfig, MultiTaskModel, build_model, train
from coterie.training.blocks import InputShape
from coterie.training.budget import task_costs
from coterie.training.yaml_config import load_config

EXPERT = 4 * (6 * 6 + 6)
"""Bytes of a linear block from 6 to 6 features."""
HEAD = 4 * (6 * 2 + 2)
FIXED = 2 * EXPERT + HEAD
"""What the trunk, a centroid and a head cost."""


def made(budget: dict[str, int], **gated: Any) -> MultiTaskModel:
    """A trunk, a gated layer of 4 experts, a cluster layer and heads, for 3 tasks."""
    stages = [
        {"kind": "hard", "block": LINEAR},
        {"kind": "gated", "experts": 4, "block": LINEAR, **gated},
        {"kind": "cluster", "clusters": 2, "block": LINEAR},
    ]
    config = load_config(ModelConfig, source={"stages": stages, "budget": budget})
    model = build_model(config, input=features(6), shape=InputShape(dims=(6,)), tasks=tasks(3))
    if gated.get("gates", "learned") == "learned":
        likely = torch.tensor([[0.9, 0.7, 0.6, 0.8], [0.2, 0.9, 0.7, 0.1], [0.1, 0.1, 0.1, 0.1]])
        with torch.no_grad():
            model.gated_stages()[0].gate.logits.copy_(torch.logit(likely))
    return model


def kept(model: MultiTaskModel) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in model.gated_stages()[0].selection()]


def test_every_used_block_is_counted() -> None:
    costs = task_costs(made({}).freeze(), torch.zeros(1, 6))
    assert [each["bytes"] for each in costs] == [FIXED + 3 * EXPERT, FIXED + 2 * EXPERT, FIXED + EXPERT]
    assert [each["operations"] for each in costs] == [2 * (36 * (2 + k) + 12) for k in (3, 2, 1)]


def test_an_lstms_operations_are_those_of_its_products() -> None:
    stages = [{"kind": "hard", "block": {"kind": "lstm", "width": 5, "bidirectional": True, "pool": "max"}}]
    model = build_model(
        load_config(ModelConfig, source={"stages": stages}),
        input=TensorSpec(name="states", dtype="float32", shape=(None, None, 3)),
        shape=InputShape(dims=(None, 3)),
        tasks=tasks(1),
    )
    for length in (1, 7):
        (cost,) = task_costs(model.eval().freeze(), torch.ones(1, length, 3))
        assert cost["operations"] == 2 * (length * 2 * 20 * (3 + 5) + 10 * 2)


@pytest.mark.parametrize(
    ("experts", "wanted"),
    [(4, [[0, 1, 3], [1, 2], [0]]), (2, [[0, 3], [1, 2], [0]]), (1, [[0], [1], [0]])],
)
def test_the_likeliest_experts_that_fit_are_kept(experts: int, wanted: list[list[int]]) -> None:
    model = made({"bytes": FIXED + experts * EXPERT})
    assert kept(model) == wanted
    frozen = model.eval().freeze()
    assert max(each["bytes"] for each in task_costs(frozen, torch.zeros(1, 6))) <= FIXED + experts * EXPERT
    inputs, index = torch.randn(3, 6), torch.arange(3)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs, index, index), frozen(inputs, index, index))


def test_two_limits_are_both_kept() -> None:
    loose, tight = FIXED + 4 * EXPERT, 2 * (36 * 4 + 12)
    assert kept(made({"bytes": loose, "operations": tight})) == [[0, 3], [1, 2], [0]]


def test_layers_share_a_budget_by_likelihood() -> None:
    gated = {"kind": "gated", "experts": 2, "block": LINEAR}
    config = load_config(
        ModelConfig, source={"stages": [gated, gated], "budget": {"bytes": HEAD + 3 * EXPERT}}
    )
    model = build_model(config, input=features(6), shape=InputShape(dims=(6,)), tasks=tasks(2))
    first, second = model.gated_stages()
    with torch.no_grad():
        first.gate.logits.copy_(torch.tensor([[3.0, 2.0], [3.0, 1.0]]))
        second.gate.logits.copy_(torch.tensor([[4.0, 1.0], [3.0, 2.0]]))
    assert first.selection().tolist() == [[True, True], [True, False]]
    assert second.selection().tolist() == [[True, False], [True, True]]


def test_a_budget_that_cannot_be_kept_says_by_how_much() -> None:
    with pytest.raises(ConfigError, match=r"model\.budget\.bytes: task 'task 0' needs 560 bytes .* 60 more"):
        made({"bytes": 500})
    with pytest.raises(ConfigError, match=r"model\.budget\.operations: .* 456 operations"):
        made({"operations": 300}, gates="softmax")


def test_a_price_rises_while_a_task_is_expected_to_cost_too_much_and_falls_after() -> None:
    model = made({"bytes": FIXED + EXPERT})
    assert model.budget is not None
    model.train()
    assert model.budget.penalty().item() == 0.0
    model.budget.after_step()
    first = model.budget.price.clone()
    assert first[0, 0] > first[0, 1] > 0  # k is 3.0, 1.9 and 0.4
    assert first[0, 2] == 0
    model.budget.penalty().backward()
    gradient = model.gated_stages()[0].gate.logits.grad
    assert gradient is not None
    assert (gradient[:2] > 0).all()
    assert (gradient[2] == 0).all()
    with torch.no_grad():
        model.gated_stages()[0].gate.logits.fill_(-9.0)
    for _ in range(3):
        model.budget.after_step()
    assert (model.budget.price <= first).all()
    assert model.budget.price[0, 1] == 0


def test_a_training_meets_its_budget_and_its_prices_are_kept(tmp_path: Path) -> None:
    gated = {"kind": "gated", "name": "experts", "experts": 4, "density_penalty": 0.0, "block": LINEAR}
    limit = HEAD + 2 * EXPERT
    config = run_config([gated], model={"budget": {"bytes": limit}}, epochs=20, gate_lr=0.1)
    run = train(config, tmp_path / "run")
    costs = task_costs(run.model.freeze(), torch.zeros(1, 6))
    assert max(each["bytes"] for each in costs) <= limit
    # Gates themselves came down to it, not only the cut at the end.
    last = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])
    assert max(sum(row) for row in last["gates"]["experts"]) < 2.6
    assert run.model.budget is not None
    assert run.model.budget.price.shape == (1, 6)

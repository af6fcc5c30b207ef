"""Stages that compute every task's state at once: one run a state, one column a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.making import LINEAR, model_of, questions, run_config, tasks

from coterie.training import load_run, train
from coterie.training.config import ModelConfig, TrainerConfig
from coterie.training.dispatch import State
from coterie.training.loop.optimise import make_optimizer
from coterie.training.stages._columns import ColumnsStage

STAGES = {
    "mmoe": {"kind": "input_gated", "experts": 3, "block": LINEAR},
    "one gate": {"kind": "input_gated", "experts": 3, "one_gate": True, "block": LINEAR},
    "noisy top-k": {"kind": "input_gated", "gate": "noisy_topk", "experts": 4, "block": LINEAR},
    "dselect-k": {"kind": "input_gated", "gate": "dselect_k", "experts": 5, "block": LINEAR},
    "ple": {"kind": "ple", "levels": [LINEAR, LINEAR], "shared": 2, "own": 2},
    "cross-stitch": {"kind": "stitched", "layers": [LINEAR, LINEAR]},
    "sluice": {
        "kind": "stitched",
        "layers": [LINEAR, LINEAR],
        "subspaces": 2,
        "skip": True,
        "orthogonality": 1e-3,
    },
    "low supervision": {
        "kind": "stitched",
        "layers": [LINEAR, LINEAR],
        "columns": "one",
        "depth": {"task 1": 1},
    },
}
every = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


@every
def test_answers_do_not_depend_on_what_else_is_asked(stage: dict[str, object]) -> None:
    model = model_of([{"kind": "specific", "block": LINEAR}, stage], tasks(3)).eval()
    row, task = questions(20, 5, 3)
    inputs = torch.randn(5, 6)
    together = model(inputs, row, task)
    alone = [
        model(inputs[index : index + 1], torch.zeros(1, dtype=torch.int64), task[at : at + 1])
        for at, index in enumerate(row.tolist())
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(model.freeze()(inputs, row, task), together)
    assert model(inputs[:0], row[:0], task[:0]).shape == (0, 2)


@every
@pytest.mark.parametrize("asked", [[0, 0, 0], [0, 1, 2]], ids=["one task", "every task"])
def test_it_learns_from_inputs_of_one_task_or_of_all(stage: dict[str, object], asked: list[int]) -> None:
    torch.manual_seed(0)
    model = model_of([stage], tasks(3)).train()
    row, task = torch.arange(3), torch.tensor(asked)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    inputs, target = torch.randn(3, 6), torch.tensor([0, 1, 0])
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(inputs, row, task), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + model.penalty()).backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_state_is_computed_once_however_many_questions_read_it() -> None:
    model = model_of([STAGES["mmoe"]], tasks(3)).eval()
    (stage, _) = model.each_stage()
    assert isinstance(stage, ColumnsStage)
    seen: list[int] = []
    stage.block.register_forward_hook(lambda _module, given, _result: seen.append(len(given[0])))
    row, task = torch.zeros(30, dtype=torch.int64), torch.arange(30) % 3
    result = stage(State(torch.randn(1, 6), row), task)
    assert seen == [1]
    assert result.values.shape == (3, 6)
    assert result.position.tolist() == task.tolist()


def test_the_plan_says_that_nothing_can_be_cut() -> None:
    plan = model_of([STAGES["one gate"]], tasks(3)).plan().stages[0]
    assert plan.dense
    assert plan.columns == (0, 0, 0)
    assert plan.uses == ((0,), (0,), (0,))
    assert plan.blocks[0].parameters == 3 * (6 * 6 + 6) + 3 * 6 + 3


def test_mixtures_and_gates_learn_at_rates_of_their_own() -> None:
    stages = [{**STAGES["sluice"], "mix_rate": 20.0, "lr": 0.01}, {**STAGES["mmoe"], "gate_rate": 0.5}]
    model = model_of(stages, tasks(3))
    config = ModelConfig.model_validate({"stages": stages})
    optimizer = make_optimizer(model, TrainerConfig(lr=0.1), config)
    rates = {id(group["params"][0]): group["lr"] for group in optimizer.param_groups}
    named = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["stages.0.block.alpha.0"] == named["stages.0.block.beta"] == pytest.approx(0.2)
    assert named["stages.0.block.layers.0.weights.layer/weight"] == pytest.approx(0.01)
    assert named["stages.1.block.gate.logits.weight"] == pytest.approx(0.05)
    assert named["stages.1.block.experts.weights.layer/weight"] == pytest.approx(0.1)


def test_a_training_is_read_again_as_it_was(tmp_path: Path) -> None:
    stages = [STAGES["sluice"], STAGES["noisy top-k"], STAGES["dselect-k"], STAGES["ple"]]
    run = train(run_config(stages, lr=3e-3, epochs=3), tmp_path / "run")
    again = load_run(tmp_path / "run")
    assert again.metrics == run.metrics
    inputs = torch.randn(4, 6)
    row, task = questions(9, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(again.model.freeze()(inputs, row, task), run.model(inputs, row, task))

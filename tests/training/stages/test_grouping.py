"""Gates can begin at the experts of groups of tasks, rather than undecided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.making import linear_bank, no_moments
from torch import Tensor

from coterie.runtime.errors import ConfigError
from coterie.training import RunConfig, load_data, load_run, train
from coterie.training.bank import Bank
from coterie.training.dispatch import State
from coterie.training.draws import Draw, ScoreDraw
from coterie.training.stages import GatedStage
from coterie.training.stages._grouping import Grouping
from coterie.training.stages.gates import (
    BernoulliGate,
    DSelectGate,
    Gate,
    RoutingGate,
    SoftmaxGate,
    TopKGate,
    UngatedMixture,
)

N, M = 6, 3
GATES: dict[str, Gate] = {
    "learned": BernoulliGate(N, M),
    "all": UngatedMixture(N, M),
    "one": RoutingGate(N, M),
    "topk": TopKGate(N, M, 1),
    "dselect_k": DSelectGate(N, M, 2),
    "softmax": SoftmaxGate(N, M),
}
BLOCK = {"kind": "linear", "width": 8, "activation": "tanh"}
PLANTED = {
    "kind": "planted",
    "tasks": 200,
    "experts": 20,
    "experts_per_task": 1,
    "expert_sets": 20,
    "width": 8,
    "outputs": 8,
    "train_rows": 50,
    "dev_rows": 10,
    "test_rows": 20,
}


def alike_bank() -> Bank:
    bank = linear_bank(M)
    with torch.no_grad():
        for weight in bank.weights.values():
            weight.fill_(0.5)  # all alike, and no rectified unit at rest where inputs are positive
    return bank


def stage_of(until: int = 1) -> GatedStage:
    bank = alike_bank()
    grouping = Grouping(N, bank, groups=M, until=until, seed=0)
    return GatedStage("experts", N, bank, RoutingGate(N, M), density_penalty=0.1, grouping=grouping)


def a_draw(questions: int) -> Draw:
    return ScoreDraw(torch.Generator().manual_seed(0), questions)


def pull(stage: GatedStage, goal: Tensor) -> None:
    """Let each task's loss pull the common expert towards a goal of its group, ``[N, 3]``."""
    row = torch.arange(16 * N)
    task = row % N
    inputs = 1 + 0.1 * torch.randn(len(row), 4, generator=torch.Generator().manual_seed(0))
    state = stage(State(inputs, row), task, a_draw(len(row)))
    (state.values[state.position] * goal[task]).sum().backward()


@pytest.mark.parametrize("name", GATES)
def test_a_gate_begins_at_the_expert_it_is_given(name: str) -> None:
    expert = torch.tensor([2, 0, 1, 1, 2, 0])
    gate = GATES[name]
    gate.prefer(expert)
    selection = gate.selection()
    weights = gate.weights(selection).detach() * selection
    assert torch.equal(weights.argmax(dim=1), expert)
    if name != "all":
        assert (gate.probabilities().detach()[torch.arange(N), expert] > 0.7).all()
    for parameter in gate.gate_parameters():
        assert parameter.requires_grad


def test_tasks_that_pull_alike_begin_with_the_same_expert() -> None:
    groups = torch.tensor([0, 1, 2, 0, 1, 2])
    stage = stage_of()
    stage.begin_epoch(0, no_moments())
    pull(stage, torch.eye(3)[groups])
    stage.begin_epoch(1, no_moments())
    chosen = stage.selection().to(torch.int64).argmax(dim=1)
    assert torch.equal(chosen[:, None] == chosen[None], groups[:, None] == groups[None])


def test_till_then_all_tasks_answer_as_one_and_no_gate_is_drawn_or_paid_for() -> None:
    stage = stage_of()
    stage.begin_epoch(0, no_moments())
    assert (stage.draws, stage.ready, float(stage.penalty())) == (0, False, 0.0)
    inputs = torch.randn(1, 4).expand(N, 4).contiguous()
    for training in (True, False):
        stage.train(training)
        state = stage(State(inputs, torch.arange(N)), torch.arange(N), a_draw(N) if training else None)
        answers = state.values[state.position]
        torch.testing.assert_close(answers, answers[:1].expand_as(answers))
    assert stage.plan().assignment().tolist() == [0] * N
    stage.begin_epoch(1, no_moments())
    assert (stage.draws, stage.ready) == (M, True)


def test_experts_are_alike_until_the_tasks_are_grouped() -> None:
    stage = stage_of()
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.1)
    stage.begin_epoch(0, no_moments())
    pull(stage, torch.eye(3)[torch.arange(N) % 3])
    before = stage.bank.flat()
    optimizer.step()
    assert not torch.equal(stage.bank.flat(), before)
    # An optimiser rounds an element differently by where it lies in memory.
    torch.testing.assert_close(stage.bank.flat(), stage.bank.flat()[:1].expand(M, -1))


@pytest.mark.parametrize(
    ("options", "mistake"),
    [({"gates": "all"}, "gates that choose"), ({"experts": 300}, "200 tasks cannot be grouped for 300")],
)
def test_a_grouped_start_that_cannot_be_is_refused(
    options: dict[str, object], mistake: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=mistake):
        train(config_of(**options), tmp_path / "run")


def config_of(**options: object) -> RunConfig:
    stage = {"kind": "gated", "name": "experts", "experts": 20, "grouped": 3, "block": BLOCK, **options}
    return RunConfig.model_validate(
        {
            "name": "grouped",
            "data": PLANTED,
            "model": {"stages": [stage]},
            "trainer": {"epochs": 12, "batch_size": 200, "lr": 1e-2, "threads": 1},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"gates": "one"}, {"gates": "dselect_k", "k": 1}, {"gates": "learned", "density_penalty": 0.2}],
    ids=["one", "dselect_k", "learned"],
)
def test_many_planted_experts_are_found_from_a_grouped_start(
    options: dict[str, object], tmp_path: Path
) -> None:
    config = config_of(**options)
    data = load_data(config.data)
    assert data.truth is not None
    train(config, tmp_path / "run", dataset=data, report=False)
    run = load_run(tmp_path / "run")
    used = (run.model.plan().stage("experts").mixing_matrix() != 0).astype(int)
    planted = data.truth.experts
    assert np.array_equal(used @ used.T > 0, planted @ planted.T > 0)

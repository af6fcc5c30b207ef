"""When a training ends and what it keeps; known ways to fail."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.making import LINEAR, Killer, StopError, dataset_of, questions, task
from tests.training.runs import CLUSTER, GATED, STAGES, config_of, history

from coterie.runtime.errors import TrainingError
from coterie.training import Run, train

# ---- when to stop, and what is best


def test_the_best_epoch_is_the_best_on_dev_and_its_weights_are_kept(whole: Run) -> None:
    records = history(whole.folder)
    best, value = 0, -np.inf
    for record in records:
        is_best = bool(record["assignments"]) and record["dev"]["metric"] > value
        assert record["best"] == is_best
        if is_best:
            best, value = record["epoch"], record["dev"]["metric"]
    assert best > 1
    assert whole.mean_metric("dev") == pytest.approx(value)


def test_patience_ends_a_training_that_does_not_improve_and_resuming_does_not_revive_it(
    tmp_path: Path,
) -> None:
    config = config_of([STAGES[0]], epochs=9, patience=2, lr=1e-12)
    for _ in range(2):
        train(config, tmp_path / "run")
        assert [record["best"] for record in history(tmp_path / "run")] == [True, False, False]


def test_the_loss_can_be_what_the_best_is_best_in(tmp_path: Path) -> None:
    train(config_of([STAGES[0]], epochs=3, monitor="loss"), tmp_path / "run", report=False)
    losses = [record["dev"]["loss"] for record in history(tmp_path / "run")]
    wanted = [loss < min(losses[:index], default=np.inf) for index, loss in enumerate(losses)]
    assert [record["best"] for record in history(tmp_path / "run")] == wanted


def test_a_loss_that_is_not_finite_ends_the_training_with_where_and_what_to_do(tmp_path: Path) -> None:
    config = config_of(
        [{"kind": "hard", "block": {**LINEAR, "activation": "none"}}], lr=1e30, optimizer="sgd"
    )
    with pytest.raises(TrainingError, match=r"at epoch 1, batch \d: use a smaller lr"):
        train(config, tmp_path / "run")


# ---- global state


def test_a_training_leaves_threads_and_random_generators_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(6)
    np.random.seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(StopError):
            train(config_of(), tmp_path / "run", watcher=Killer(8))
        train(config_of(), tmp_path / "run", report=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


# ---- known ways to fail


def test_gates_that_all_close_still_leave_each_task_an_expert(tmp_path: Path) -> None:
    gated = {"kind": "gated", "name": "experts", "experts": 4, "density_penalty": 50.0, "block": LINEAR}
    run = train(
        config_of([gated], epochs=4, gate_lr=2.0, schedule="constant"), tmp_path / "run", report=False
    )
    stage = run.model.gated_stages()[0]
    assert float(stage.density().detach().max()) < 0.5
    assert all(len(used) == 1 for used in run.model.plan().stage("experts").uses)
    inputs, (row, number) = torch.randn(5, 6), questions(20, rows=5, number_of_tasks=6)
    torch.testing.assert_close(run.model.freeze()(inputs, row, number), run.model(inputs, row, number))


def test_experts_do_not_collapse_into_one(tmp_path: Path) -> None:
    gated = {"kind": "gated", "name": "experts", "experts": 3, "density_penalty": 0.0, "block": LINEAR}
    run = train(config_of([gated], epochs=4, schedule="constant"), tmp_path / "run", report=False)
    flat = run.model.gated_stages()[0].bank.flat()
    distance = torch.cdist(flat, flat) + 9 * torch.eye(3)
    assert distance.min() > 0.5
    assert len(run.model.plan().stage("experts").blocks) > 1


@pytest.mark.parametrize("balance", ["questions", "tasks"])
def test_unlike_tasks_of_unlike_sizes_with_missing_labels_train_without_nan(
    tmp_path: Path, balance: str
) -> None:
    generator = np.random.default_rng(0)
    nan = float("nan")
    specs = [
        task("large"),
        task("small", width=3),
        task("labels", "multilabel", 2),
        task("one", "regression", 1),
    ]
    number = np.array([0] * 80 + [1] * 5 + [2] * 20 + [3])
    inputs = generator.standard_normal((106, 6)) + 5
    target = np.full((106, 2), nan)
    target[:80, 0] = generator.random(80) < 0.05  # one class is rare
    target[80:85, 0] = [0, 1, 2, 2, 1]
    target[85:105] = generator.random((20, 2)) < 0.5
    target[85:100, 0], target[95:105, 1] = nan, nan  # questions 95 to 99 have no label at all
    target[105, 0] = 1e4
    target[:3, 0] = nan
    data = dataset_of(specs, inputs, range(106), number, target)
    config = config_of(
        [GATED, CLUSTER], batch_size=8, task_balance=balance, gradient_clip=1.0, gate_samples=1
    )
    run = train(config, tmp_path / "run", dataset=data, report=False)
    assert all(torch.isfinite(each).all() for each in run.model.parameters())
    assert run.metrics["dev"]["large"]["accuracy"] > 0.8
    with torch.no_grad():
        answer = run.model(
            torch.from_numpy(inputs[105:].astype(np.float32)), torch.tensor([0]), torch.tensor([3])
        )
    assert float(answer[0, 0]) == pytest.approx(1e4, rel=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_all_optimisers_train(tmp_path: Path, name: str) -> None:
    stages = [{**GATED, "block": LINEAR}, {**CLUSTER, "freeze_after": 2}]
    train(
        config_of(stages, optimizer=name, epochs=3, lr=0.02, gate_samples=1), tmp_path / "run", report=False
    )
    losses = [record["train"]["loss"] for record in history(tmp_path / "run")]
    assert losses[-1] < losses[0]

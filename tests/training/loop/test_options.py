"""The trainer's options in whole trainings: each resumes, and does what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.making import LINEAR, Killer, StopError, dataset_of, model_of, run_config, task, tasks
from tests.training.runs import STAGES, config_of, history

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.training import train
from coterie.training.loop.average import WeightAverage

OPTIONS: dict[str, dict[str, Any]] = {
    "a sampler": {"sampler": "temperature", "temperature": 3.0},
    "uncertainty": {"balancing": "uncertainty"},
    "surgery": {"balancing": "pcgrad"},
    "an average": {"ema": 0.9},
    "bf16 in parts": {"precision": "bf16", "accumulate": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_killed_training_resumes_as_if_it_had_not_been(tmp_path: Path, options: dict[str, Any]) -> None:
    # Clustered in epoch 2, frozen in epoch 3, killed in epoch 4.
    stages = [*STAGES[:2], {**STAGES[2], "freeze_after": 2}]
    config = config_of(stages, epochs=4, **options)
    for folder, watcher in (("killed", Killer(11)), ("killed", None), ("whole", None)):
        try:
            train(config, tmp_path / folder, watcher=watcher, report=False)
        except StopError:
            assert len(history(tmp_path / "killed")) == 3
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    kinds = ("model.safetensors", "state.safetensors", "state.json")
    for file in ("best.safetensors", *(f"checkpoints/epoch-00004/{kind}" for kind in kinds)):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_weights_of_unknown_tasks_are_refused(tmp_path: Path) -> None:
    config = config_of([STAGES[0]], task_weights={"task_1": 2.0, "tusk_2": 1.0})
    with pytest.raises(
        ConfigError, match=r"trainer.task_weights.tusk_2: the data has no such task; .*task_2"
    ):
        train(config, tmp_path / "run")


def test_weights_of_questions_and_of_tasks_reach_the_update(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((200, 6))
    answer = (inputs[:, 0] > 0).astype(float)
    # Half of task 0's questions are answered wrongly, and weigh nothing; task 1 answers the other way round.
    wrong = np.arange(200) % 2 == 0
    target = np.concatenate([np.where(wrong, 1 - answer, answer), 1 - answer])[:, None]
    weight = np.concatenate([np.where(wrong, 0.0, 1.0), np.ones(200)]).astype(np.float32)
    row, number = np.tile(np.arange(200), 2), np.repeat([0, 1], 200)
    data = dataset_of(tasks(2), inputs, row, number, target, weight=weight)
    dev = dataset_of(tasks(2), inputs, row[:200], number[:200], answer[:, None]).splits["dev"]
    data = replace(data, splits={**data.splits, "dev": dev, "test": data.splits["train"]})
    config = run_config([{"kind": "hard", "block": LINEAR}], epochs=8, lr=0.02, task_weights={"task 1": 0.0})
    run = train(config, tmp_path / "run", dataset=data, report=False)
    assert run.metrics["dev"]["task 0"]["accuracy"] > 0.9
    assert run.metrics["test"]["task 1"]["accuracy"] < 0.8


def test_uncertainty_keeps_noise_from_drowning_what_can_be_learned(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((200, 6))
    specs = [task(name, "regression", 1) for name in ("clean", *(f"noise {index}" for index in range(9)))]
    row, number = np.tile(np.arange(200), 10), np.repeat(np.arange(10), 200)
    target = np.concatenate([inputs[:, 0] - inputs[:, 1], generator.standard_normal(1800)])[:, None]
    data = dataset_of(specs, inputs, row, number, target)
    left = {}
    for balancing in ("none", "uncertainty"):
        config = run_config(
            [{"kind": "hard", "block": LINEAR}], epochs=30, batch_size=20, gate_lr=0.1, balancing=balancing
        )
        train(config, tmp_path / balancing, dataset=data, report=False)
        left[balancing] = 1 - history(tmp_path / balancing)[-1]["dev"]["tasks"]["clean"]["r2"]
    assert left["uncertainty"] < 0.5 * left["none"]


def test_a_small_task_is_learned_where_it_is_asked_as_often(tmp_path: Path) -> None:
    """A trunk of one number has room for one direction: the large task's, or one between both."""
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((420, 6))
    specs = [task("large"), task("small")]
    number = np.array([0] * 400 + [1] * 20)
    target = np.where(number == 0, inputs[:, 0] > 0, inputs[:, 1] > 0).astype(float)[:, None]
    data = dataset_of(specs, inputs, range(420), number, target)
    small = {}
    for sampler in ("natural", "uniform"):
        block = {"kind": "linear", "width": 1, "activation": "none"}
        config = run_config([{"kind": "hard", "block": block}], epochs=20, lr=0.03, sampler=sampler)
        run = train(config, tmp_path / sampler, dataset=data, report=False)
        small[sampler] = run.metrics["dev"]["small"]["accuracy"]
    assert small["uniform"] > small["natural"] + 0.1


def test_bf16_is_for_blocks_only_and_comes_to_the_same(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        train(config_of(epochs=5, precision=precision), tmp_path / precision, report=False)
        losses[precision] = [record["dev"]["loss"] for record in history(tmp_path / precision)]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    model = model_of(STAGES, tasks(6)).train()
    model.compute_in("bf16")
    states: list[torch.Tensor] = []
    for stage in model.each_stage():
        stage.register_forward_hook(lambda _stage, _inputs, state: states.append(state.values))
    model(torch.randn(4, 6), torch.arange(4), torch.arange(4))
    assert {each.dtype for each in states} == {torch.float32}


def test_blocks_that_cannot_be_compiled_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", lambda _function, **_options: fail)
    with pytest.raises(TrainingError, match=r"\(InvalidCxxCompiler.*found\): set trainer.compile to false"):
        train(config_of([STAGES[0]], compile=True), tmp_path / "run")


def test_an_average_begins_as_a_mean_and_begins_anew_where_a_shape_changes() -> None:
    model, average = (
        model_of([{"kind": "hard", "name": "trunk", "block": LINEAR}], tasks(2)),
        WeightAverage(0.9),
    )
    parameter = model.stages[0].bank.weights["layer/bias"]
    for value in (1.0, 2.0, 6.0):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(model)
    with average.in_place(model):
        assert parameter.flatten().tolist() == pytest.approx([3.0] * 6)
    assert parameter.flatten().tolist() == [6.0] * 6
    model.stages[0].bank.weights["layer/bias"] = torch.nn.Parameter(torch.full((2, 6), 7.0))
    average.update(model)
    with average.in_place(model):
        assert model.stages[0].bank.weights["layer/bias"].flatten().tolist() == [7.0] * 12

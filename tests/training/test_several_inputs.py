"""Models of several inputs: what encodes each, what joins them, and that all of it learns and is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coterie.runtime.errors import ConfigError
from coterie.training import Dataset, Run, RunConfig, build_model, dataset_of, load_run, train
from coterie.training.run_data import RunData
from coterie.training.several import apply, count, each, take
from coterie.training.yaml_config import load_config

HARD = {"kind": "hard", "name": "trunk", "block": {"kind": "linear", "width": 8}}
BAG = {"kind": "ngram_bag", "width": 4, "buckets": 16}


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Whether an offer is a bargain: the text alone does not tell, nor does the number."""
    generator = np.random.default_rng(0)
    good, rent = generator.integers(0, 2, 200), generator.standard_normal(200)
    texts = [("lovely" if mood else "damp") + f" flat {number}" for number, mood in enumerate(good)]
    bargain = np.where((rent < 0) == (good == 1), "yes", "no")
    numbers = np.stack([100 + 30 * rent, generator.standard_normal(200)], axis=1)
    return dataset_of({"offer": texts, "numbers": numbers}, bargain, names=["bargain"], dev_share=0.2)


def config(
    inputs: dict[str, Any], stages: list[dict[str, Any]] | None = None, *, epochs: int = 30, **model: Any
) -> RunConfig:
    source = {
        "data": {"kind": "memory"},
        "model": {"inputs": inputs, "stages": [HARD] if stages is None else stages, **model},
        "trainer": {"epochs": epochs, "batch_size": 32, "lr": 2e-2, "threads": 1},
    }
    return load_config(RunConfig, source=source)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("several") / "run"
    return train(config({"offer": BAG}), folder, dataset=data, report=False)


def test_a_task_that_needs_both_inputs_is_learned_and_kept(run: Run) -> None:
    assert run.mean_metric("dev") > 0.9
    kept = load_run(run.folder)
    assert [spec.name for spec in kept.data.inputs] == ["offer", "numbers"]
    samples = kept.samples()
    assert len(each(samples)) == 2
    inputs = apply(torch.from_numpy, samples)
    rows = torch.arange(count(samples))
    with torch.no_grad():
        scores = kept.model(inputs, rows, torch.zeros_like(rows))
        assert torch.allclose(run.model(inputs, rows, torch.zeros_like(rows)), scores)
        assert torch.allclose(kept.model.freeze()(inputs, rows, torch.zeros_like(rows)), scores, atol=1e-5)
        alone = kept.model(take(inputs, slice(3, 4)), torch.zeros(1, dtype=torch.int64), rows[:1])
    assert torch.allclose(alone[0], scores[3], atol=1e-5)


def test_encoders_learn_with_the_rest(run: Run) -> None:
    fresh = build_model(
        run.config.model,
        input=run.data.inputs,
        shape=run.data.shapes(),
        tasks=run.data.tasks,
        seed=run.config.seed,
    )
    for name, weight in fresh.stages[0].bank.weights.items():
        assert not torch.allclose(weight, run.model.stages[0].bank.weights[name], atol=1e-3), name


def test_numbers_are_standardised_and_stay_in_the_plan(run: Run) -> None:
    first = run.model.plan().stages[0]
    assert (first.name, first.kind, len(first.blocks)) == ("input", "hard", 1)
    constants = run.model.freeze().banks[0].tensors[0]
    assert constants["encoders.1.0.mean"][0] == pytest.approx(100, abs=10)
    assert 1 / constants["encoders.1.0.scale"][0] == pytest.approx(30, abs=6)


def test_an_encoder_may_be_several_blocks(data: Dataset, tmp_path: Path) -> None:
    words = [{"kind": "words", "width": 6}, {"kind": "lstm", "width": 4}]
    run = train(
        config({"offer": words, "numbers": {"kind": "mlp", "widths": [6, 3]}}, epochs=1),
        tmp_path / "run",
        dataset=data,
        report=False,
    )
    assert run.model.stages[1].bank.weights["layer/weight"].shape == (1, 8, 4 + 3)


@pytest.mark.parametrize(
    ("inputs", "stages", "message"),
    [
        ({}, None, r"model\.inputs\.offer: an encoding is a vector \(D,\), not tokens \(length,\)"),
        ({"offer": {"kind": "words", "width": 4}}, None, r"inputs\.offer: an encoding is a vector"),
        ({"offer": {"kind": "conv"}}, None, r"inputs\.offer: block 'conv' takes images"),
        (
            {"offer": BAG, "ofer": BAG},
            None,
            r"inputs\.ofer: the data has no such input; it has offer, numbers",
        ),
        (
            {"offer": [{"kind": "words", "width": 4, "train": {}}, {"kind": "lstm", "width": 4}]},
            None,
            r"inputs\.offer: vectors from a file or of a training of their own are for a model of one input",
        ),
        (
            {"offer": BAG},
            [HARD | {"block": {"kind": "conv"}}],
            r"stages\.0\.block: block 'conv' takes",
        ),
    ],
)
def test_what_does_not_fit_an_input_is_a_mistake_with_its_place(
    data: Dataset, tmp_path: Path, inputs: dict[str, Any], stages: list[dict[str, Any]] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config(inputs, stages), tmp_path / "run", dataset=data)


def test_encoders_of_one_input_are_a_mistake(tmp_path: Path) -> None:
    one = dataset_of(np.eye(10), [0, 1] * 5, dev_share=0.4)
    with pytest.raises(ConfigError, match=r"model\.inputs: the data has one input"):
        train(config({"inputs": {"kind": "linear", "width": 2}}), tmp_path / "run", dataset=one)


def test_a_budget_counts_the_encoders(data: Dataset, tmp_path: Path) -> None:
    gated = {"kind": "gated", "name": "experts", "experts": 2, "block": {"kind": "linear", "width": 4}}
    with pytest.raises(ConfigError, match=r"model\.budget\.bytes: task 'bargain' needs"):
        train(config({"offer": BAG}, [gated], budget={"bytes": 500}), tmp_path / "run", dataset=data)


def test_the_description_of_an_older_run_is_read() -> None:
    spec = {"name": "inputs", "dtype": "float32", "shape": [None, 3]}
    raw = {"input": spec, "tasks": [], "vocabulary": 0, "text": None, "sha256": "0"}
    assert [each_.shape for each_ in RunData.model_validate_json(json.dumps(raw)).inputs] == [(None, 3)]

"""Views: each is trained by itself, and all of them are seen together afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import (
    Dataset,
    ModelConfig,
    MultiTaskModel,
    RunConfig,
    build_model,
    dataset_of,
    load_run,
    train,
)
from coterie.training.blocks import InputShape
from coterie.training.dispatch import State
from coterie.training.draws import ScoreDraw
from coterie.training.loop.batches import BatchSource
from coterie.training.stages import BankStage, ViewsStage
from coterie.training.yaml_config import load_config

LINEAR = {"kind": "linear", "activation": "none"}
VIEWS = {"kind": "views", "views": {"a": {**LINEAR, "width": 3}, "b": {**LINEAR, "width": 2}}}
BAG = {"kind": "ngram_bag", "width": 4, "buckets": 64, "start": "log_ratio"}
WORDS = {"kind": "words", "width": 4, "train": {"epochs": 1}}
POOL = {"kind": "attention_pool"}


def model_of(*stages: dict[str, Any]) -> MultiTaskModel:
    """A model of three tasks over five numbers."""
    return build_model(
        load_config(ModelConfig, source={"stages": list(stages)}),
        input=TensorSpec(name="features", dtype="float32", shape=(None, 5)),
        shape=InputShape(dims=(5,)),
        tasks=[TaskSpec(name=name, kind="regression", labels=("value",)) for name in "xyz"],
    )


def stage_of(model: MultiTaskModel) -> ViewsStage:
    stage = model.stages[0]
    assert isinstance(stage, ViewsStage)
    return stage


def seen(stage: ViewsStage, inputs: Tensor, row: Tensor, questions: int) -> Tensor:
    """Return what each question reads while training, ``[Q, D]``."""
    draw = ScoreDraw(torch.Generator(), questions, samples=len(row) // questions)
    state = stage.train()(State(inputs, row), torch.zeros_like(row), draw)
    read: Tensor = state.values[state.position]
    return read


def test_every_question_reads_one_view_at_a_time_whatever_sets_of_gates_there_are() -> None:
    stage, inputs = stage_of(model_of(VIEWS)), torch.randn(4, 5)
    row = torch.tensor([3, 0, 0])
    whole = 2 * stage.eval()(State(inputs, row), torch.zeros_like(row)).values
    wanted = torch.cat([whole[row] * torch.tensor(mask) for mask in ([1, 1, 1, 0, 0], [0, 0, 0, 1, 1])])
    for sets in (1, 3):
        found = seen(stage, inputs, row.repeat(2 * sets), 6)
        torch.testing.assert_close(found, wanted.repeat(sets, 1), rtol=0, atol=0)


def test_scores_of_all_views_are_the_mean_of_what_each_says() -> None:
    model, inputs = model_of(VIEWS), torch.randn(4, 5)
    row = torch.arange(4).repeat(2)
    with torch.no_grad():
        plain = model.train()(inputs, row[:4], torch.ones_like(row)[:4])  # of which nobody learns
        each = model.train()(inputs, row, torch.ones_like(row), ScoreDraw(torch.Generator(), 8))
        together = model.eval()(inputs, row[:4], torch.ones_like(row)[:4])
    torch.testing.assert_close(together, each.reshape(2, 4, -1).mean(0))
    torch.testing.assert_close(plain, together)


def test_views_that_are_trained_together_are_seen_together() -> None:
    model = model_of({**VIEWS, "alone": False})
    assert model.copies == 1
    inputs, row = torch.randn(4, 5), torch.arange(4)
    draw = ScoreDraw(torch.Generator(), 4)
    with torch.no_grad():
        trained = model.train()(inputs, row, torch.ones_like(row), draw)
        torch.testing.assert_close(model.eval()(inputs, row, torch.ones_like(row)), trained)
    row = torch.arange(4)
    assert (seen(stage_of(model), torch.randn(4, 5), row, 4) != 0).all()


def test_a_batch_is_asked_once_for_each_view() -> None:
    assert model_of(VIEWS).copies == 2
    target = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [0.0, 3.0]], dtype=np.float32)
    dataset = dataset_of(np.eye(4, 5), target, names=["x", "y"], split=["train"] * 3 + ["dev"])
    batch = BatchSource(dataset.splits["train"], 2).batch(np.arange(6))
    twice = batch.repeated(2)
    assert (len(twice.inputs), twice.whole) == (3, 12)
    assert twice.place.tolist() == list(range(12))
    for name in ("row", "task", "target", "weight"):
        again = getattr(twice, name)
        assert torch.equal(again[:6], getattr(batch, name))
        assert torch.equal(again[6:], getattr(batch, name))
    # A part of a batch has its places among those of all copies.
    part = BatchSource(dataset.splits["train"], 2).batch(np.arange(6), part=1, parts=3).repeated(2)
    assert part.place.tolist() == [2, 3, 8, 9]


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_view_learns_is_nothing_of_the_others_when_it_is_trained_alone(alone: bool) -> None:
    inputs, target = torch.randn(8, 5), torch.randn(8, 1)

    def gradient(scale: float) -> Tensor:
        """Of view a, where view b's weights are so many times theirs."""
        model = model_of({**VIEWS, "alone": alone})
        bank = stage_of(model).bank
        for name, weight in bank.weights.items():
            if name.startswith("encoders/b"):
                weight.data *= scale
        row = torch.arange(8).repeat(model.copies)
        draw = ScoreDraw(torch.Generator(), len(row))
        scores = model.train()(inputs, row, torch.zeros_like(row), draw)
        (scores[:, :1] - target.repeat(model.copies, 1)).square().mean().backward()
        return torch.cat(
            [
                torch.zeros(0) if weight.grad is None else weight.grad.flatten()
                for name, weight in bank.weights.items()
                if name.startswith("encoders/a")
            ]
        )

    assert gradient(1.0).any()
    assert torch.allclose(gradient(1.0), gradient(9.0), rtol=1e-5, atol=1e-7) == alone


def test_views_learn_at_rates_of_their_own() -> None:
    assert dict(stage_of(model_of(VIEWS)).bank.template.rates) == {}
    rates = stage_of(model_of({**VIEWS, "rates": {"b": 0.25}})).bank.template.rates
    assert set(rates) == {"encoders.b.0.layer.weight", "encoders.b.0.layer.bias"}
    assert set(rates.values()) == {0.25}
    tokens = InputShape(dims=(None,), tokens=True, vocabulary=9)
    bag = {"kind": "ngram_bag", "width": 2, "buckets": 8, "weight_rate": 6}
    stages = [{"kind": "views", "views": {"a": bag, "b": bag}, "rates": {"b": 0.5}}]
    model = build_model(
        load_config(ModelConfig, source={"stages": stages}),
        input=TensorSpec(name="tokens", dtype="int64", shape=(None, None)),
        shape=tokens,
        tasks=[TaskSpec(name="x", kind="regression", labels=("value",))],
    )
    rates = stage_of(model).bank.template.rates
    assert rates["encoders.a.0.weight"] == 6
    assert (rates["encoders.b.0.weight"], rates["encoders.b.0.embedding"]) == (3, 0.5)


def test_mistakes_are_told_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"stages\.0\.views"):
        model_of({"kind": "views", "views": {"a": {**LINEAR, "width": 3}}})
    wrong = {"kind": "views", "views": {"a": {"kind": "lstm", "width": 2}, "b": LINEAR | {"width": 2}}}
    with pytest.raises(ConfigError, match=r"stages\.0\.views\.a: block 'lstm' takes sequences"):
        model_of(wrong)
    with pytest.raises(ConfigError, match=r"stages\.0\.rates\.c: there is no such view"):
        model_of({**VIEWS, "rates": {"c": 2.0}})
    with pytest.raises(ConfigError, match=r"stages\.0\.views\.items: is a name of torch's own"):
        model_of({"kind": "views", "views": {"items": {**LINEAR, "width": 3}, "b": {**LINEAR, "width": 2}}})
    with pytest.raises(ConfigError, match="one stage may train its views alone"):
        model_of({**VIEWS, "name": "one"}, {**VIEWS, "name": "two"})
    model_of({**VIEWS, "name": "one"}, {**VIEWS, "name": "two", "alone": False})


@pytest.fixture(scope="module")
def texts() -> Dataset:
    fillers = np.random.default_rng(0).integers(0, 9, (120, 2))
    rows = [f"{('bad', 'good')[number % 2]} w{one} w{two}" for number, (one, two) in enumerate(fillers)]
    return dataset_of(
        rows, ["no", "yes"] * 60, ["x", "x", "y", "y"] * 30, dev_share=0.2, tokens={"min_frequency": 1}
    )


def test_what_bags_and_words_begin_with_is_the_same_as_without_views(texts: Dataset, tmp_path: Path) -> None:
    def bank(name: str, stage: dict[str, Any]) -> dict[str, Tensor]:
        source = {
            "data": {"kind": "memory"},
            "model": {"stages": [{"name": "trunk", **stage}]},
            "trainer": {"epochs": 1, "lr": 1e-12, "threads": 1},
        }
        run = train(load_config(RunConfig, source=source), tmp_path / name, dataset=texts, report=False)
        first = run.model.stages[0]
        assert isinstance(first, BankStage)
        return first.bank.tensors(0)

    both = bank("both", {"kind": "views", "views": {"bag": BAG, "words": [WORDS, POOL]}})
    alone = bank("alone", {"kind": "hard", "block": BAG})
    for name in ("weight", "owner"):
        torch.testing.assert_close(both[f"encoders.bag.0.{name}"], alone[name])
    twice = bank("twice", {"kind": "views", "views": {"one": [WORDS, POOL], "two": [WORDS, POOL]}})
    torch.testing.assert_close(both["encoders.words.0.table"], twice["encoders.two.0.table"])
    # And a run is read as it was.
    kept = load_run(tmp_path / "both").model.stages[0]
    assert isinstance(kept, BankStage)
    assert all(torch.equal(tensor, kept.bank.tensors(0)[name]) for name, tensor in both.items())

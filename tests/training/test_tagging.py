"""A tag for each word: blocks, heads, losses, metrics and a whole training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.e2e.projects import taggings

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import ModelConfig, MultiTaskModel, build_model, load_run, load_run_config, train
from coterie.training.blocks import InputShape, WordCharsConfig
from coterie.training.data import Split, TokenInputs
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.evaluate import evaluate
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.metrics import spans, task_metrics
from coterie.training.yaml_config import load_config

NAN = float("nan")
POS = TaskSpec(name="pos", kind="tagging", labels=("D", "N", "V"))
NAME = TaskSpec(name="name", kind="tagging", labels=("B-x", "I-x", "O", "B-y", "I-y"))
CASE = TaskSpec(name="case", kind="tagging", labels=("no", "yes", "?"))
SHAPE = InputShape(dims=(None, 5), tokens=True, vocabulary=9, characters=7)
WORDS = {"kind": "hard", "name": "words", "block": {"kind": "word_chars", "width": 6, "filters": 4}}
LSTM = {"kind": "lstm", "width": 3, "bidirectional": True, "pool": "none"}


def model_of(*stages: dict[str, Any], tasks: tuple[TaskSpec, ...] = (POS, NAME, CASE)) -> MultiTaskModel:
    config = load_config(ModelConfig, source={"stages": [WORDS, *stages]})
    spec = TensorSpec(name="tokens", dtype="int64", shape=(None, None, 5))
    return build_model(config, input=spec, shape=SHAPE, tasks=tasks).eval()


def sentences(*lengths: int, longest: int) -> torch.Tensor:
    """Random words of these numbers, ``[R, longest, 5]``."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 7, (len(lengths), longest, 5), generator=generator)
    return ids * (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, :, None]


def test_padding_is_zeros_and_changes_no_word() -> None:
    block = WordCharsConfig(width=6, characters=4, filters=3).build(SHAPE).eval()
    ids = sentences(3, 5, longest=5)
    states = block(ids)
    assert states.shape == (2, 5, 9)
    assert not states[0, 3:].any()
    assert states[0, :3].any(dim=-1).all()
    torch.testing.assert_close(block(ids[:1, :3]), states[:1, :3])


def test_characters_tell_words_of_the_same_id_apart() -> None:
    block = WordCharsConfig(width=6, characters=4, filters=8).build(SHAPE).eval()
    ids = torch.tensor([[[1, 2, 3, 0, 0], [1, 2, 4, 0, 0]]])
    first, second = block(ids)[0]
    assert torch.equal(first[:6], second[:6])
    assert not torch.equal(first[6:], second[6:])


def test_word_dropout_hides_words_and_not_their_characters() -> None:
    block = WordCharsConfig(width=6, characters=4, filters=3, word_dropout=0.99).build(SHAPE)
    ids = sentences(4, longest=5)
    unknown = ids.clone()
    unknown[:, :4, 0] = 1
    torch.manual_seed(0)
    torch.testing.assert_close(block.train()(ids), block.eval()(unknown))


def test_the_block_takes_words_only() -> None:
    with pytest.raises(ConfigError, match="'word_chars' takes words with their characters"):
        WordCharsConfig().build(InputShape(dims=(None,), tokens=True, vocabulary=9))


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "specific", "block": LSTM},
        {"kind": "gated", "experts": 3, "block": LSTM},
        {"kind": "cluster", "clusters": 2, "block": LSTM},
        {"kind": "stitched", "layers": [LSTM, LSTM], "subspaces": 2, "skip": True},
    ],
    ids=lambda stage: str(stage["kind"]),
)
def test_every_stage_answers_each_word_whatever_stands_beside_it(stage: dict[str, Any]) -> None:
    model = model_of(stage)
    ids = sentences(2, 6, 4, longest=6)
    row, task = torch.tensor([0, 1, 2, 0, 0]), torch.tensor([0, 1, 2, 2, 1])
    scores = model(ids, row, task)
    assert scores.shape == (5, 6, 5)
    assert not scores[[0, 2, 3], :, 3:].any()  # past the tasks' own three tags
    for question in range(5):
        length = (2, 6, 4)[row[question]]
        alone = model(
            ids[row[question]][None, :length], torch.zeros(1, dtype=torch.int64), task[question, None]
        )
        torch.testing.assert_close(alone[0], scores[question, :length], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            model.freeze().scores(int(task[question]), ids)[row[question], :length],
            alone[0, :, : model.tasks[task[question]].width],
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_tagging_needs_sequences_to_the_end() -> None:
    with pytest.raises(ConfigError, match=r"the heads take sequences \(length, D\)"):
        model_of({"kind": "hard", "block": LSTM | {"pool": "max"}})


def test_the_loss_is_the_mean_over_a_sentences_tagged_words() -> None:
    scores = torch.randn(3, 4, 5)
    target = torch.tensor([[0, 2, NAN, NAN, NAN], [1, NAN, 1, 4, NAN], [NAN] * 5])
    task = torch.tensor([0, 1, 1])
    losses, labelled = QuestionLoss((POS, NAME), torch.ones(2, 5))(scores, target, task)
    cross_entropy = torch.nn.functional.cross_entropy
    wanted = [
        cross_entropy(scores[0, :2, :3], torch.tensor([0, 2])),
        cross_entropy(scores[1, [0, 2, 3]], torch.tensor([1, 1, 4])),
        torch.tensor(0.0),
    ]
    torch.testing.assert_close(losses, torch.stack(wanted))
    assert labelled.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-x I-x O B-x", {(0, 2, "x"), (3, 4, "x")}),
        ("B-x B-x I-x", {(0, 1, "x"), (1, 3, "x")}),
        ("O I-x I-x", {(1, 3, "x")}),  # conlleval begins a span at such an I
        ("B-x I-y I-y", {(0, 1, "x"), (1, 3, "y")}),
        ("I-y O I-y", {(0, 1, "y"), (2, 3, "y")}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_spans_are_counted_as_conlleval_counts_them(tags: str, expected: set[object]) -> None:
    numbers = np.array([NAME.labels.index(tag) for tag in tags.split()])
    assert spans(NAME.labels, numbers) == expected


def test_metrics_count_words_and_whole_spans() -> None:
    gold = np.array([[0, 1, 2, NAN], [2, 3, NAN, NAN]], dtype=np.float32)  # B-x I-x O; O B-y
    guess = np.array([[0, 2, 2, 0], [2, 3, 3, -1]], dtype=np.float32)  # B-x O O; O B-y
    found = task_metrics(NAME, guess, gold)
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert set(task_metrics(POS, guess[:, :2], gold[:, :2])) == {"accuracy"}
    assert task_metrics(NAME, guess, np.full_like(gold, NAN)) == {}


def test_a_split_of_unlike_lengths_is_scored_sentence_by_sentence() -> None:
    tokens = [[[1, 0, 0, 0, 0]] * length for length in (1, 5, 2)]
    target = np.full((3, 7), NAN, dtype=np.float32)
    target[0, :1], target[1, :5], target[2, :2] = 1, [1, 1, 0, 1, 1], [0, 1]
    split = Split(inputs=TokenInputs.of(tokens), row=np.arange(3), task=np.zeros(3, dtype=int), target=target)

    def always_second(inputs: torch.Tensor, row: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        del task
        # The widest task's columns stand past this one's own two: however high, they are no answers.
        return torch.tensor([0.0, 1.0, 9.0]).expand(len(row), inputs.shape[1], 3)

    narrow = TaskSpec(name="pos", kind="tagging", labels=("D", "N"))
    source = BatchSource(split, 2)
    both = (narrow, CASE)
    scores = evaluate(always_second, source, both, QuestionLoss(both, torch.ones(2, 3)))
    assert scores.tasks == {"pos": {"accuracy": pytest.approx(6 / 8)}, "case": {}}


@pytest.mark.slow
def test_a_training_learns_to_tag(tmp_path: Path) -> None:
    stages = {"stages": [WORDS, {"kind": "hard", "block": LSTM | {"width": 8}}]}
    config = load_run_config(taggings(tmp_path), overrides=["trainer.epochs=6"])
    config = config.model_copy(update={"model": load_config(ModelConfig, source=stages)})
    run = train(config, tmp_path / "run")
    assert run.metrics["dev"]["class"]["accuracy"] > 0.95
    assert run.metrics["dev"]["name"]["f1"] > 0.95
    assert run.mean_metric("dev") == load_run(tmp_path / "run").mean_metric("dev")

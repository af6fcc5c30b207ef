"""Teachers answer what nobody labelled, and a model learns from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.making import Killer, StopError, tasks
from tests.training.runs import history

from coterie.runtime.errors import CheckpointError, ConfigError
from coterie.runtime.tasks import TaskSpec
from coterie.training import Dataset, RunConfig, dataset_of, load_run, load_run_config, train
from coterie.training.data import DenseInputs, JoinedInputs, Split, TokenInputs, join_splits
from coterie.training.distillation import ANSWERS, SCORES
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.lessons import AnswerLoss, Lessons, as_answers
from coterie.training.loop.losses import QuestionLoss

LINEAR = {"kind": "linear", "width": 8, "activation": "tanh"}
STAGES = [
    {"kind": "gated", "name": "experts", "experts": 2, "block": {**LINEAR, "dropout": 0.2}},
    {"kind": "cluster", "name": "layer", "clusters": 2, "warmup": 1, "block": LINEAR},
]
MIXED = [
    TaskSpec(name="class", kind="classification", labels=("a", "b", "c")),
    TaskSpec(name="labels", kind="multilabel", labels=("a", "b")),
    TaskSpec(name="number", kind="regression", labels=("a",)),
]


def data(*, labelled: int = 48, unlabelled: int = 300, dev: int = 200) -> Dataset:
    """Two tasks that a line through the middle answers; few rows of train have an answer."""
    rng = np.random.default_rng(0)
    count = labelled + unlabelled + dev
    features = rng.normal(size=(count, 12)).astype(np.float32)
    target = (features[:, :4].sum(axis=1) > 0).astype(object)
    split = np.repeat(np.array(["train", "unlabeled", "dev"], dtype=object), [labelled, unlabelled, dev])
    target[split == "unlabeled"] = None
    return dataset_of(features, target, np.arange(count) % 2, split=split)


def config(distillation: dict[str, Any] | None = None, **trainer: Any) -> RunConfig:
    options = {"epochs": 4, "lr": 1e-2, "optimizer": "adamw", "threads": 1, **trainer}
    source = {"name": "taught", "data": {"kind": "memory"}, "model": {"stages": STAGES}, "trainer": options}
    return load_run_config(source | ({} if distillation is None else {"distillation": distillation}))


TAUGHT = {"teachers": [{"number": 2}, {"model": {"stages": [{"kind": "hard", "block": LINEAR}]}}]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(config(TAUGHT), folder, dataset=data(), report=False)
    return folder


def test_a_model_learns_what_its_teachers_say_about_questions_without_an_answer(tmp_path: Path) -> None:
    """It agrees with them, where one that did not hear them knows better or worse by itself."""
    dataset, teachers = data(), config({"teachers": [{"number": 3}]}, epochs=30)
    assert dataset.unanswered is not None
    taught = train(teachers, tmp_path / "taught", dataset=dataset, report=False)
    alone = train(config(epochs=30), tmp_path / "alone", dataset=dataset, report=False)
    answers = torch.from_numpy(_kept(tmp_path / "taught"))[-len(dataset.unanswered) :].argmax(1)

    def agree(model: torch.nn.Module) -> float:
        split = dataset.unanswered
        assert split is not None
        inputs = torch.from_numpy(np.asarray(split.inputs.batch(np.arange(len(split.inputs)))))
        with torch.no_grad():
            scores = model(inputs, torch.from_numpy(split.row), torch.from_numpy(split.task))
        return float((scores.argmax(1) == answers).float().mean())

    assert agree(taught.model) > 0.95
    assert agree(taught.model) > agree(alone.model)


def _kept(folder: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(folder / ANSWERS)["answers"]


def test_answers_and_scores_are_kept_and_the_teachers_are_not(whole: Path) -> None:
    answers, dataset = _kept(whole), data()
    assert dataset.unanswered is not None
    assert answers.shape == (len(dataset.splits["train"]) + len(dataset.unanswered), 2)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-6)
    scores = json.loads((whole / SCORES).read_text())["dev"]
    assert len(scores["each"]) == 3
    assert len(set(scores["each"])) > 1  # each has a seed of its own
    assert 0.5 < scores["together"] <= 1
    assert not (whole / "teachers").exists()


@pytest.mark.parametrize("batches", [1, 5, 11, 16])
def test_a_killed_training_ends_with_the_same_weights(whole: Path, tmp_path: Path, batches: int) -> None:
    """Killed in the first teacher, between two, in the last, in the model's own training."""
    with pytest.raises(StopError):
        train(config(TAUGHT), tmp_path, dataset=data(), watcher=Killer(batches), report=False)
    train(config(TAUGHT), tmp_path, dataset=data(), report=False)
    for name in ("best.safetensors", ANSWERS, SCORES, "plan.json", "metrics.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
    assert history(tmp_path) == history(whole)


def test_a_finished_run_is_read_without_its_teachers(whole: Path) -> None:
    run = load_run(whole)
    assert run.config.distillation is not None
    assert run.mean_metric("dev") > 0.5


def test_teachers_are_not_trained_where_there_is_nothing_to_ask_them(tmp_path: Path) -> None:
    dataset = data(unlabelled=0)
    assert dataset.unanswered is None
    train(config({}), tmp_path / "taught", dataset=dataset, report=False)
    train(config(), tmp_path / "alone", dataset=dataset, report=False)
    assert not (tmp_path / "taught" / ANSWERS).exists()
    same = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("taught", "alone")]
    assert same[0] == same[1]


def test_a_share_in_labelled_questions_alone_is_a_distillation(tmp_path: Path) -> None:
    dataset = data(unlabelled=0)
    train(config({"labelled": 0.5}), tmp_path / "taught", dataset=dataset, report=False)
    train(config(), tmp_path / "alone", dataset=dataset, report=False)
    assert _kept(tmp_path / "taught").shape == (len(dataset.splits["train"]), 2)
    same = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("taught", "alone")]
    assert same[0] != same[1]


def test_damaged_answers_are_named(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(config(TAUGHT), tmp_path, dataset=data(), watcher=Killer(14), report=False)
    (tmp_path / ANSWERS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"teachers.safetensors is damaged: delete it"):
        train(config(TAUGHT), tmp_path, dataset=data(), report=False)


def test_taggings_are_refused(tmp_path: Path) -> None:
    texts, tags = [["a", "b"], ["b"]] * 20, [["x", "y"], ["y"]] * 20
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "tags.parquet"
    pq.write_table(pa.table({"text": texts, "tags": tags}), path)
    source = {
        "data": {"kind": "table", "path": str(path), "text": "text", "target": "tags"},
        "model": {
            "stages": [
                {"kind": "hard", "block": {"kind": "word_chars", "width": 4}},
                {"kind": "hard", "block": {"kind": "lstm", "width": 4, "pool": "none"}},
            ]
        },
        "distillation": {"labelled": 0.5},
    }
    with pytest.raises(ConfigError, match="distillation: is not for taggings, but task 'tags'"):
        train(load_run_config(source), tmp_path / "run", report=False)


# ---- what a question costs


def test_the_answers_cost_is_least_at_the_answers() -> None:
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    task = torch.tensor([0, 1, 2, 0, 1, 2])
    loss = AnswerLoss(MIXED, torch.ones(3, 3))
    answers = as_answers(scores.detach(), MIXED, task)
    assert answers[1, 2] == 0  # past the task's own width
    loss(scores, answers, task).sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-6


def test_certain_answers_cost_what_labels_do() -> None:
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    task, scale = torch.tensor([0, 1, 2, 0, 1, 2]), torch.full((3, 3), 2.0)
    labels = torch.tensor([[2, 0, 0], [1, 0, 0], [0.3, 0, 0], [0, 0, 0], [1, 1, 0], [-1, 0, 0]])
    target = labels.clone()
    target[task == 0, 1:] = torch.nan
    answers = torch.where(
        (task == 0).unsqueeze(1), torch.nn.functional.one_hot(labels[:, 0].long().clamp(min=0), 3), labels
    )
    expected, labelled = QuestionLoss(MIXED, scale)(scores, target, task)
    assert labelled.all()
    torch.testing.assert_close(AnswerLoss(MIXED, scale)(scores, answers.float(), task), expected)


def test_a_question_without_a_label_weighs_what_is_configured() -> None:
    target = np.array([[0.0], [np.nan], [1.0]], dtype=np.float32)
    split = Split(
        inputs=DenseInputs(np.eye(3, dtype=np.float32)),
        row=np.arange(3),
        task=np.zeros(3, int),
        target=target,
    )
    answers = np.full((3, 2), 0.5, dtype=np.float32)
    assert BatchSource(split, 1).weight.tolist() == [1, 0, 1]
    source = BatchSource(split, 1, lessons=Lessons(answers=answers, weight=0.25, labelled=0.5))
    assert source.weight.tolist() == [1, 0.25, 1]
    batch = source.batch(np.array([0, 1]))
    assert batch.taught is not None
    assert batch.taught.tolist() == [0.5, 1]
    assert batch.answers is not None
    assert batch.answers.tolist() == [[0.5, 0.5], [0.5, 0.5]]


# ---- one split of two


def test_joined_splits_ask_the_same_of_the_same_inputs() -> None:
    def split(texts: list[list[int]], start: int) -> Split:
        dense = DenseInputs(np.arange(start, start + len(texts), dtype=np.float32)[:, None])
        return Split(
            inputs=JoinedInputs((TokenInputs.of(texts), dense)),
            row=np.arange(len(texts))[::-1].copy(),
            task=np.zeros(len(texts), dtype=np.int64),
            target=np.full((len(texts), 1), start, dtype=np.float32),
        )

    one, other = split([[1], [2, 3]], 0), split([[4, 5, 6], [], [7]], 5)
    both = join_splits([one, other])
    assert both.weight is None
    assert both.target.ravel().tolist() == [0, 0, 5, 5, 5]
    tokens, numbers = both.inputs.batch(both.row)
    assert tokens.tolist() == [[2, 3, 0], [1, 0, 0], [7, 0, 0], [0, 0, 0], [4, 5, 6]]
    assert numbers.ravel().tolist() == [1, 0, 7, 6, 5]
    assert BatchSource(both, len(tasks(1))).questions == 5

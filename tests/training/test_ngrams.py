"""What an n-gram bag's weights begin at, where that comes of the labels."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.making import Killer, StopError
from tokenizers import Tokenizer

from coterie.exporter import export_run
from coterie.runtime import load
from coterie.runtime.errors import ConfigError
from coterie.training import Dataset, build_model, dataset_of, load_run, load_run_config, train
from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, NgramBag
from coterie.training.ngrams import give_ngram_weights
from coterie.training.stages import BankStage

BAG = {"kind": "ngram_bag", "width": 4, "ngrams": 2, "buckets": 4096, "start": "log_ratio"}


def data(*, unlabeled: int = 0, kind: str = "yes or no") -> Dataset:
    """In shop a "good" is said of what pleases, in shop b "grand"; of what does not "not good"."""
    rng = np.random.default_rng(0)
    rows, answers, shops = [], [], []
    for number in range(200):
        shop, likes = "ab"[number % 2], number // 2 % 2 == 1
        filler = " ".join(f"w{word}" for word in rng.integers(0, 9, 5))
        said = {"a": "good", "b": "grand"}[shop] if likes else "not good"
        opening = ("the maybe", "the well")[rng.integers(2)]
        rows.append(f"{opening} {filler} {said} once{number}")
        answers.append(("yes" if likes else "no") if kind == "yes or no" else float(likes) + 0.5)
        shops.append(shop)
    split = np.array(["train"] * 160 + ["dev"] * 40 + ["unlabeled"] * unlabeled, dtype=object)
    rows += [f"rare thing w{number % 9}" for number in range(unlabeled)]
    target: Any = answers + [None] * unlabeled
    return dataset_of(rows, target, shops + ["a"] * unlabeled, split=split, tokens={"min_frequency": 1})


def config(*, kind: str = "hard", **block: Any) -> dict[str, Any]:
    stages = [{"kind": kind, "name": "bag", "block": {**BAG, **block}}]
    trainer = {"epochs": 2, "lr": 1e-2, "threads": 1}
    return {"data": {"kind": "memory"}, "model": {"stages": stages}, "trainer": trainer}


class Start:
    """A fresh model's bags, and what weights they begin with."""

    def __init__(self, dataset: Dataset, source: dict[str, Any]) -> None:
        text, settings = dataset.text, load_run_config(source)
        assert text is not None
        shape = InputShape(dims=(None,), tokens=True, vocabulary=text.vocabulary)
        model = build_model(settings.model, input=dataset.inputs, shape=shape, tasks=dataset.tasks)
        give_ngram_weights(model, settings.model, dataset)
        stage = model.stages[0]
        assert isinstance(stage, BankStage)
        assert isinstance(stage.bank.template, NgramBag)
        self.bank: Bank = stage.bank
        self.bag: NgramBag = stage.bank.template
        self.owner = stage.bank.constants["owner"]
        self._tokenizer = Tokenizer.from_str(text.tokenizer)

    def key(self, ngram: str) -> int:
        tokens = torch.tensor([self._tokenizer.encode(ngram).ids])
        return int(self.bag.keys(tokens)[0, (tokens.shape[1] - 1) * tokens.shape[1]])

    def weight(self, ngram: str, block: int = 0) -> float:
        """Return the weight that an n-gram begins with; 0 if it has no row."""
        key = self.key(ngram)
        row = int(self.bag.rows(torch.tensor(key)))
        return float(self.bank.weights["weight"].detach()[block, row]) if int(self.owner[row]) == key else 0.0


def test_what_tells_the_labels_apart_weighs_more_than_what_does_not() -> None:
    start = Start(data(), config())
    assert start.weight("not") > 2 * start.weight("maybe") > 0
    assert start.weight("not good") > 2 * start.weight("the maybe") > 0
    assert start.weight("the") == 0  # in every text


def test_ngrams_of_one_text_have_no_row() -> None:
    start = Start(data(), config())
    assert start.weight("once7") == start.weight("good once2") == 0
    assert start.key("once7") not in start.owner.tolist()


def test_unlabeled_texts_count_for_which_ngrams_have_a_row() -> None:
    assert Start(data(), config()).weight("rare thing") == 0
    assert Start(data(unlabeled=30), config()).weight("rare thing") > 0


def test_a_row_is_of_the_ngram_that_tells_most() -> None:
    """Where its weight and the number of its texts are both heard, as in the texts' norms."""
    dataset = data()
    start, alone = Start(dataset, config(buckets=1)), Start(dataset, config(buckets=1 << 20))
    texts = [text.split() for text in _decoded(dataset)]
    pairs = [{" ".join(pair) for pair in pairwise(text)} for text in texts]
    count = Counter(pair for found in pairs for pair in found)
    telling = {pair: number * alone.weight(pair) ** 2 for pair, number in count.items()}
    most = max(telling, key=lambda pair: telling[pair])
    assert start.owner[start.bag.vocabulary :].tolist() == [start.key(most)]


def test_an_ngram_without_a_row_changes_nothing() -> None:
    start = Start(data(), config())
    read = start.bank.run_only
    known = torch.tensor([start._tokenizer.encode("the not good w1").ids])
    more = torch.tensor([start._tokenizer.encode("the not good w1 once7").ids])
    assert start.weight("w1 once7") == 0
    torch.testing.assert_close(read(known), read(more), rtol=0, atol=0)


def test_tasks_with_bags_of_their_own_have_weights_of_their_own_labels() -> None:
    start = Start(data(), config(kind="specific"))
    assert start.weight("grand", 1) > 2 * start.weight("grand", 0)


def test_numbers_have_no_labels_to_tell_apart() -> None:
    start = Start(data(kind="numbers"), config())
    assert start.weight("not") == pytest.approx(start.weight("good") * _rarer("not", "good"), rel=1e-5)


def _rarer(one: str, other: str) -> float:
    dataset = data(kind="numbers")
    texts = [f" {text} " for text in _decoded(dataset)]
    count = [sum(f" {word} " in text for text in texts) for word in (one, other)]
    return float(np.log(len(texts) / count[0]) / np.log(len(texts) / count[1]))


def _decoded(dataset: Dataset) -> list[str]:
    assert dataset.text is not None
    words = {number: word for word, number in Tokenizer.from_str(dataset.text.tokenizer).get_vocab().items()}
    inputs = dataset.splits["train"].inputs
    return [
        " ".join(words[token] for token in np.asarray(inputs.batch(np.array([row])))[0])
        for row in range(len(inputs))
    ]


def test_a_killed_training_ends_with_the_same_weights_and_a_bundle_answers_alike(tmp_path: Path) -> None:
    settings, dataset = load_run_config(config(ngrams=3)), data()
    train(settings, tmp_path / "whole", dataset=dataset, report=False)
    with pytest.raises(StopError):
        train(settings, tmp_path / "cut", dataset=dataset, watcher=Killer(5), report=False)
    run = train(settings, tmp_path / "cut", dataset=dataset, report=False)
    both = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "cut")]
    assert both[0] == both[1]
    again = load_run(tmp_path / "cut")
    assert again.metrics == run.metrics
    export_run(again, tmp_path / "bundle")
    text = "the maybe w1 not good unheard"
    (answer,) = load(tmp_path / "bundle").predict("a", [text])
    tokens = torch.tensor([Tokenizer.from_file(str(tmp_path / "cut" / "tokenizer.json")).encode(text).ids])
    with torch.no_grad():
        scores = again.model(tokens, torch.tensor([0]), torch.tensor([0]))
    wanted = torch.softmax(scores[0], 0).tolist()
    assert list(answer.probabilities.values()) == pytest.approx(wanted, abs=1e-5)


def test_it_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start: is of the learned weights"):
        load_run_config(config(weighted=False))
    source = {
        "data": {"kind": "memory"},
        "model": {
            "inputs": {"text": BAG},
            "stages": [{"kind": "hard", "block": {"kind": "linear", "width": 4}}],
        },
    }
    dataset = dataset_of({"text": ["a b", "b a"] * 9, "size": np.ones((18, 1))}, [0, 1] * 9)
    with pytest.raises(ConfigError, match=r"model\.inputs\.text\.start: is for models of one input"):
        train(load_run_config(source), tmp_path, dataset=dataset)

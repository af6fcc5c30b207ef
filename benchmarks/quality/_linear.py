"""TF-IDF or log-count ratios of n-grams, and logistic regression: the linear models that a table must beat.

Their settings are chosen on dev among as many as are given here, once for all tasks together and once for a
model a task; under another protocol they are the same.

Source: S. Wang and C. D. Manning, Baselines and Bigrams, ACL 2012, for the ratios.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from benchmarks.quality._design import Job, tries
from benchmarks.quality._record import Record, identity, read
from coterie.cli._machine import machine

Labels = npt.NDArray[np.int64]
Rows = tuple[list[str], npt.NDArray[np.str_], Labels]
Setting = dict[str, Any]
COSTS = {"tfidf": (10.0, 30.0, 100.0), "ratios": (0.03, 0.1, 0.3), "ratios-idf": (5.0, 20.0, 80.0)}
GRID: tuple[Setting, ...] = tuple(
    {"ngrams": ngrams, "min_df": 2, "weights": weights, "C": cost}
    for ngrams, (weights, costs) in itertools.product((2, 3), COSTS.items())
    for cost in costs
)
_FLOOR, _MOST = 0.3, 2.0
SCOPES = {"linear-pooled": "pooled", "linear-single": "single"}


def linear(job: Job, files: tuple[str, ...]) -> Record:
    """Choose the settings where that was not done yet, fit, and score dev and test."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_THREAD)
    rows = _rows(Path(files[0]))
    each = SCOPES[job.system.name] == "single"
    (first,) = tries(job.study, job.system)
    earlier = None if job == first else read(first)
    if earlier is None and job != first:
        raise RuntimeError(f"{job.name}: make {first.name} first, where its settings are chosen")
    grid = GRID if earlier is None else (earlier["config"]["chosen"],)
    found = _scores(rows, grid, each, "dev")
    means = [float(np.mean(list(scores.values()))) for scores in found]
    best = int(np.argmax(means))
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return {
        **identity(job),
        "config": {"chosen": grid[best], "dev_of_each": [round(100 * mean, 2) for mean in means]},
        "curves": [],
        "scores": {"dev": found[best], "test": _scores(rows, grid[best : best + 1], each, "test")[0]},
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1),
        "machine": machine(),
    }


def _rows(file: Path) -> Mapping[str, Rows]:
    table = pq.read_table(file).to_pydict()
    found = {}
    for split in ("train", "dev", "test"):
        chosen = [at for at, name in enumerate(table["split"]) if name == split and table["text"][at].strip()]
        found[split] = (
            [table["text"][at] for at in chosen],
            np.array([table["task"][at] for at in chosen]),
            np.array([table["label"][at] for at in chosen], dtype=np.int64),
        )
    return found


def _scores(
    rows: Mapping[str, Rows], settings: Sequence[Setting], each: bool, split: str
) -> list[dict[str, float]]:
    """Return for each setting every task's accuracy, of one model for all tasks or for each."""
    texts, tasks, labels = rows["train"]
    asked, of, truth = rows[split]
    right = np.zeros((len(settings), len(truth)), dtype=bool)
    for task in sorted(set(tasks)) if each else [None]:
        train = np.flatnonzero(tasks == task) if each else np.arange(len(tasks))
        ask = np.flatnonzero(of == task) if each else np.arange(len(of))
        # What takes longest is to count, which several settings have in common.
        counts: dict[tuple[int, int], tuple[Any, Any]] = {}
        for at, setting in enumerate(settings):
            counted = setting["ngrams"], setting["min_df"]
            if counted not in counts:
                counts[counted] = _counts(counted, [texts[i] for i in train], [asked[i] for i in ask])
            answers = _predicted(setting, *counts[counted], labels[train])
            right[at, ask] = answers == truth[ask]
    return [{str(task): round(float(row[of == task].mean()), 6) for task in sorted(set(of))} for row in right]


def _counts(counted: tuple[int, int], train: list[str], asked: list[str]) -> tuple[Any, Any]:
    """Return how often each n-gram stands in each text, sparse ``[n, n-grams]``, of both."""
    longest, least = counted
    vectorizer = CountVectorizer(
        ngram_range=(1, longest),
        min_df=least,
        tokenizer=str.split,
        token_pattern=None,
        lowercase=False,
        dtype=np.float32,
    )
    return vectorizer.fit_transform(train), vectorizer.transform(asked)


def _predicted(setting: Setting, train: Any, asked: Any, labels: Labels) -> Labels:
    if setting["weights"] == "tfidf":
        tfidf = TfidfTransformer(sublinear_tf=True)
        train, asked = tfidf.fit_transform(train), tfidf.transform(asked)
    else:
        train, asked = (train > 0).astype(np.float32), (asked > 0).astype(np.float32)
        in_class = [np.asarray(train[labels == label].sum(axis=0)).ravel() for label in (1, 0)]
        positive, negative = ((row + 1) / (row + 1).sum() for row in in_class)
        weights = np.log(positive / negative)
        if setting["weights"] == "ratios-idf":
            # What the preset text begins with: frequent n-grams count less, telling ones more.
            weights = np.log(len(labels) / sum(in_class)) * (_FLOOR + np.minimum(np.abs(weights), _MOST))
        scale = sparse.diags(weights.astype(np.float32))
        train, asked = (train @ scale).tocsr(), (asked @ scale).tocsr()
        if setting["weights"] == "ratios-idf":
            train, asked = normalize(train), normalize(asked)
    regression = LogisticRegression(C=setting["C"], max_iter=300, solver="liblinear")
    found: Labels = regression.fit(train, labels).predict(asked)
    return found

"""TF-IDF or log-count ratios of n-grams, and logistic regression: the linear models that a table must beat.

Their settings are chosen on dev among as many as are given here, once for all tasks together and once for a
model a task; under another protocol they are the same.

Source: S. Wang and C. D. Manning, Baselines and Bigrams, ACL 2012, for the ratios.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression

from benchmarks.quality._design import Job, tries
from benchmarks.quality._record import Record, read
from coterie.cli._machine import machine

Labels = npt.NDArray[np.int64]
Rows = tuple[list[str], npt.NDArray[np.str_], Labels]
Setting = dict[str, Any]
GRID: tuple[Setting, ...] = tuple(
    {"ngrams": ngrams, "min_df": least, "weights": weights, "C": cost}
    for ngrams, least, (weights, costs) in itertools.product(
        (2, 3), (1, 2), (("tfidf", (3.0, 10.0, 30.0)), ("ratios", (0.01, 0.03, 0.1)))
    )
    for cost in costs
)
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
    found = [_scores(rows, setting, each, "dev") for setting in grid]
    means = [float(np.mean(list(scores.values()))) for scores in found]
    best = int(np.argmax(means))
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return {
        "study": job.study.name,
        "system": job.system.name,
        "try": job.choice,
        "protocol": job.protocol.name,
        "seed": job.seed,
        "options": [],
        "config": {"chosen": grid[best], "dev_of_each": [round(100 * mean, 2) for mean in means]},
        "curves": [],
        "scores": {"dev": found[best], "test": _scores(rows, grid[best], each, "test")},
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


def _scores(rows: Mapping[str, Rows], setting: Setting, each: bool, split: str) -> dict[str, float]:
    """Return each task's accuracy, of one model for all tasks or for each."""
    texts, tasks, labels = rows["train"]
    asked, of, truth = rows[split]
    right = np.zeros(len(truth), dtype=bool)
    for task in sorted(set(tasks)) if each else [None]:
        train = np.flatnonzero(tasks == task) if each else np.arange(len(tasks))
        ask = np.flatnonzero(of == task) if each else np.arange(len(of))
        model = _Model(setting).fit([texts[at] for at in train], labels[train])
        right[ask] = model.predict([asked[at] for at in ask]) == truth[ask]
    return {str(task): round(float(right[of == task].mean()), 6) for task in sorted(set(of))}


class _Model:
    def __init__(self, setting: Setting) -> None:
        self._weights: Literal["tfidf", "ratios"] = setting["weights"]
        self._counts = CountVectorizer(
            ngram_range=(1, setting["ngrams"]),
            min_df=setting["min_df"],
            tokenizer=str.split,
            token_pattern=None,
            lowercase=False,
            binary=self._weights == "ratios",
            dtype=np.float32,
        )
        self._tfidf = TfidfTransformer(sublinear_tf=True)
        self._ratios = np.zeros(0, dtype=np.float32)
        self._regression = LogisticRegression(C=setting["C"], max_iter=300, solver="liblinear")

    def fit(self, texts: list[str], labels: Labels) -> _Model:
        counts = self._counts.fit_transform(texts)
        if self._weights == "tfidf":
            self._tfidf.fit(counts)
        else:
            in_class = [np.asarray(counts[labels == label].sum(axis=0)).ravel() + 1 for label in (1, 0)]
            positive, negative = (row / np.abs(row).sum() for row in in_class)
            self._ratios = np.log(positive / negative).astype(np.float32)
        self._regression.fit(self._weighed(counts), labels)
        return self

    def predict(self, texts: list[str]) -> Labels:
        found: Labels = self._regression.predict(self._weighed(self._counts.transform(texts)))
        return found

    def _weighed(self, counts: Any) -> Any:
        if self._weights == "tfidf":
            return self._tfidf.transform(counts)
        return (counts @ sparse.diags(self._ratios)).tocsr()

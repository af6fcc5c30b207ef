"""The estimators on several tasks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from coterie.runtime.errors import ConfigError
from coterie.training import load_run
from coterie.training.estimators import ClusteredMultiTaskClassifier, ClusteredMultiTaskRegressor

GENERATOR = np.random.default_rng(0)
TASKS = 8
TASK = GENERATOR.integers(0, TASKS, 480)
SHOP = np.array([f"shop {number}" for number in range(TASKS)])[TASK]
X = GENERATOR.normal(size=(480, 5))
SCORES = (X * GENERATOR.normal(size=(2, 5))[TASK % 2]).sum(axis=1)
BOUGHT = np.where(SCORES > 0, "yes", "no")
WIDE = X @ GENERATOR.normal(size=(5, 3))
QUICK = {
    "hidden_layer_sizes": (16,),
    "n_clusters": 2,
    "max_iter": 8,
    "learning_rate": 0.02,
    "random_state": 0,
    "overrides": ("trainer.threads=1",),
}


@pytest.fixture(scope="module")
def shops() -> ClusteredMultiTaskClassifier:
    return ClusteredMultiTaskClassifier(**QUICK | {"max_iter": 14, "n_experts": 0}).fit(
        X[:320], BOUGHT[:320], task=SHOP[:320]
    )


def test_a_task_column_divides_the_rows_among_tasks_that_share(shops: ClusteredMultiTaskClassifier) -> None:
    assert shops.score(X[320:], BOUGHT[320:], task=SHOP[320:]) > 0.85
    assert shops.tasks_.tolist() == [f"shop {number}" for number in range(TASKS)]
    assert shops.classes_.tolist() == ["no", "yes"]
    assert shops.n_iter_ == len(shops.history_) == 14
    clusters = shops.run_.model.plan().stage("clusters").assignment()
    assert len(set(clusters[::2])) == len(set(clusters[1::2])) == 1
    assert clusters[0] != clusters[1]


def test_the_task_decides_the_answer(shops: ClusteredMultiTaskClassifier) -> None:
    one, other = shops.predict_proba(X, "shop 0"), shops.predict_proba(X, "shop 1")
    assert one.shape == (480, 2)
    np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-6)
    assert (one.argmax(axis=1) != other.argmax(axis=1)).mean() > 0.2
    mixed = shops.predict_proba(X[:2], ["shop 0", "shop 1"])
    np.testing.assert_allclose(mixed, [one[0], other[1]], atol=1e-6)


def test_a_wrong_task_is_an_error_that_says_what_to_do(shops: ClusteredMultiTaskClassifier) -> None:
    for task, message in (
        (None, "give the task of each row"),
        ("shop 77", "did you mean 'shop 7'"),
        (SHOP[:3], "one for each, or one"),
    ):
        with pytest.raises(ValueError, match=message):
            shops.predict(X, task)
    with pytest.raises(ValueError, match="leave task out"):
        ClusteredMultiTaskRegressor(**QUICK).fit(X, WIDE, task=SHOP)


def test_each_column_of_the_target_is_a_task_and_nan_is_missing() -> None:
    kinds = np.stack([np.where(WIDE[:, 0] > 0, 1.0, 0.0), np.digitize(WIDE[:, 1], [-1, 1])], axis=1)
    kinds[::3, 0] = np.nan
    model = ClusteredMultiTaskClassifier(**QUICK).fit(X, kinds)
    assert [classes.tolist() for classes in model.classes_] == [[0, 1], [0, 1, 2]]
    assert [each.shape for each in model.predict_proba(X)] == [(480, 2), (480, 3)]
    assert model.predict(X).shape == kinds.shape
    assert model.score(X, kinds) > 0.85
    known = ~np.isnan(kinds[:, 0])
    parts = [np.mean((model.predict(X) == kinds)[known, 0]), np.mean((model.predict(X) == kinds)[:, 1])]
    assert model.score(X, kinds) == pytest.approx(np.mean(parts))


def test_a_regressor_gives_numbers_in_the_targets_own_scale() -> None:
    model = ClusteredMultiTaskRegressor(**QUICK).fit(X, 1000 + 50 * WIDE)
    assert model.predict(X).shape == WIDE.shape
    assert model.score(X, 1000 + 50 * WIDE) > 0.8


def test_a_search_over_parameters_hands_the_tasks_on() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = ClusteredMultiTaskClassifier(**QUICK | {"max_iter": 3})
        model.set_fit_request(task=True).set_score_request(task=True)
        search = GridSearchCV(model, {"n_experts": [0, 2]}, cv=2, error_score="raise")
        search.fit(X, BOUGHT, task=SHOP)
        assert search.best_score_ > 0.5
        kinds = [stage.kind for stage in search.best_estimator_.run_.model.plan().stages]
        assert ("gated" in kinds) is bool(search.best_params_["n_experts"])


def test_early_stopping_keeps_rows_of_each_task_and_stops() -> None:
    options = QUICK | {"early_stopping": True, "n_iter_no_change": 1, "max_iter": 40, "learning_rate": 0.1}
    model = ClusteredMultiTaskClassifier(**options).fit(X, BOUGHT, task=SHOP)
    assert model.n_iter_ < 40
    assert set(model.history_[0]["dev"]["tasks"]) == set(SHOP)


def test_a_task_with_one_row_is_learned_too() -> None:
    rows = [*range(20), int(np.flatnonzero(TASK == 7)[0])]
    kept = [row for row in rows[:-1] if TASK[row] != 7] + rows[-1:]
    options = QUICK | {"early_stopping": True, "max_iter": 3, "n_clusters": 50}
    model = ClusteredMultiTaskClassifier(**options).fit(X[kept], BOUGHT[kept], task=TASK[kept])
    assert model.predict(X[:4], task=7).shape == (4,)


def test_rows_of_no_weight_are_not_learned() -> None:
    flipped = np.where(np.arange(480) % 2, BOUGHT, np.where(BOUGHT == "yes", "no", "yes"))
    weight = (np.arange(480) % 2).astype(float)
    model = ClusteredMultiTaskClassifier(**QUICK).fit(X, flipped, task=TASK % 2, sample_weight=weight)
    assert model.score(X, BOUGHT, task=TASK % 2) > 0.85
    assert model.score(X, flipped, task=TASK % 2, sample_weight=weight) > 0.85


def test_ones_own_stages_take_the_place_of_the_default_model(tmp_path: Path) -> None:
    stages = [{"kind": "specific", "name": "own", "block": {"kind": "linear", "width": 4}}]
    model = clone(ClusteredMultiTaskClassifier(stages=stages, **QUICK)).set_params(
        run_folder=tmp_path / "run"
    )
    model.fit(X, BOUGHT, task=TASK)
    assert [stage.name for stage in model.run_.model.plan().stages] == ["input", "own", "head"]
    assert (tmp_path / "run" / "report.html").is_file()
    assert load_run(tmp_path / "run").metrics == model.run_.metrics
    with pytest.raises(ConfigError, match="bloc"):
        model.set_params(stages=[{"kind": "hard", "bloc": {}}], run_folder=None).fit(X, BOUGHT)


def test_a_pickled_estimator_answers_alike(shops: ClusteredMultiTaskClassifier) -> None:
    again = pickle.loads(pickle.dumps(shops))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.predict_proba(X, SHOP), shops.predict_proba(X, SHOP))


@pytest.mark.slow
def test_a_bundle_of_an_estimator_answers_alike(shops: ClusteredMultiTaskClassifier, tmp_path: Path) -> None:
    from coterie.exporter import export_run
    from coterie.runtime import load

    export_run(shops.run_, tmp_path / "bundle")
    answer = load(tmp_path / "bundle").predict("shop 3", X[:5].astype(np.float32))
    np.testing.assert_allclose(answer.probabilities, shops.predict_proba(X[:5], "shop 3"), atol=1e-4)

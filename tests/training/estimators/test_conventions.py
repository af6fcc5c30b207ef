"""scikit-learn's own checks of an estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from coterie.training.estimators import ClusteredMultiTaskClassifier, ClusteredMultiTaskRegressor

QUICK = {
    "hidden_layer_sizes": (16,),
    "max_iter": 3,
    "learning_rate": 0.05,
    "overrides": ("trainer.threads=1",),
}
DRAWN = "rows are drawn into batches: a row of weight two is not a row that stands twice"
ROUNDED = (
    "the arithmetic is float32: where a batch of another size is computed otherwise, the last digit differs"
)
ALLOWED = {
    "check_sample_weight_equivalence_on_dense_data": DRAWN,
    "check_methods_subset_invariance": ROUNDED,
    "check_methods_sample_order_invariance": ROUNDED,
}


@pytest.mark.slow
@parametrize_with_checks(
    [ClusteredMultiTaskClassifier(**QUICK), ClusteredMultiTaskRegressor(**QUICK)],
    expected_failed_checks=lambda _: ALLOWED,
)
def test_the_estimators_keep_scikit_learns_conventions(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)

"""Estimators in scikit-learn's conventions.

>>> from coterie.training.estimators import ClusteredMultiTaskClassifier
>>> model = ClusteredMultiTaskClassifier(n_clusters=2).fit(X, y, task=shop)      # doctest: +SKIP
>>> model.predict(X, task=shop)                                                  # doctest: +SKIP
>>> export_run(model.run_, Path("bundles/shops"))                                # doctest: +SKIP
"""

from coterie.training.estimators._classifier import ClusteredMultiTaskClassifier
from coterie.training.estimators._regressor import ClusteredMultiTaskRegressor

__all__ = ["ClusteredMultiTaskClassifier", "ClusteredMultiTaskRegressor"]

"""What the estimators have in common: parameters, the model they stand for, fitting and asking."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from coterie.runtime.tasks import TaskSpec
from coterie.training.config import RunConfig
from coterie.training.data._dataset import Array, Floats, Ints
from coterie.training.estimators._tasks import Tasks, dataset_for
from coterie.training.loop.history import read_history
from coterie.training.loop.progress import ConsoleWatcher, Watcher
from coterie.training.run import train
from coterie.training.yaml_config import load_config

_ROWS = 1024


class ClusteredMultiTask(BaseEstimator):  # type: ignore[misc] # scikit-learn has no type hints
    """Base of the estimators; see them for the parameters."""

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (64,),
        n_experts: int = 4,
        n_clusters: int = 3,
        density_penalty: float = 0.01,
        stages: Sequence[Mapping[str, Any]] | None = None,
        max_iter: int = 60,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        overrides: Sequence[str] = (),
        run_folder: str | Path | None = None,
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_experts = n_experts
        self.n_clusters = n_clusters
        self.density_penalty = density_penalty
        self.stages = stages
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.overrides = overrides
        self.run_folder = run_folder
        self.verbose = verbose
        self.random_state = random_state

    @abstractmethod
    def _targets(self, y: Any, tasks: Tasks) -> tuple[list[TaskSpec], Floats]:
        """Return what each task answers, and the answers ``[Q]`` by question, NaN where missing."""

    @abstractmethod
    def _score(self, truth: Array, predicted: Array, weight: Array | None) -> float:
        """Score one task."""

    @abstractmethod
    def predict(self, X: Any, task: Any = None) -> Array:  # noqa: N803
        """Answer."""

    def fit(self, X: Any, y: Any, task: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Learn which tasks share which weights.

        Args:
            X: Features ``[n, D]``.
            y: Answers ``[n]``; or ``[n, T]``, each column a task, NaN or None where an answer is missing.
            task: The task of each row, names or numbers, ``[n]``; without it y ``[n]`` is one task.
            sample_weight: ``[n]``.

        Raises:
            ValueError: If the arrays are wrong.
            ConfigError: If the parameters are.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: pass it"
            )
        inputs = _as_floats(validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2))
        check_consistent_length(inputs, y, task)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, inputs, dtype=np.float64, ensure_non_negative=True)
            if not weight.any():
                raise ValueError("Sample weights: all of them are zero; nothing would be learned")
        self._tasks = Tasks.of(y, task)
        row, number = self._tasks.questions(len(inputs), task)
        specs, target = self._targets(y, self._tasks)
        asked = ~np.isnan(target) & (True if weight is None else weight[row] > 0)
        random = check_random_state(self.random_state)
        config = self._config(len(specs), inputs.shape[1], seed=int(random.randint(np.iinfo(np.int32).max)))
        dataset = dataset_for(
            inputs,
            specs,
            row=row[asked],
            task=number[asked],
            target=target[asked],
            weight=None if weight is None else (weight / weight.mean())[row[asked]].astype(np.float32),
            dev_share=self.validation_fraction if self.early_stopping else 0.0,
            generator=np.random.default_rng(config.seed),
        )
        watcher = ConsoleWatcher() if self.verbose else Watcher()
        with ExitStack() as stack:
            kept = self.run_folder is not None
            folder = Path(self.run_folder or stack.enter_context(TemporaryDirectory()))
            run = train(config, folder, dataset=dataset, watcher=watcher, report=kept)
            self.run_ = replace(run, inputs=run.samples())
            self.history_ = read_history(folder)
        self.n_iter_ = len(self.history_)
        self.tasks_ = np.array(self._tasks.names)
        return self

    def score(
        self,
        X: Any,  # noqa: N803
        y: Any,
        task: Any = None,
        sample_weight: Any = None,
    ) -> float:
        """Return the mean over tasks of their scores; missing answers do not count.

        Args:
            X: Features ``[n, D]``.
            y: As in ``fit``.
            task: As in ``predict``.
            sample_weight: ``[n]``.
        """
        predicted, truth = self.predict(X, task), np.asarray(y)
        if truth.shape != predicted.shape:
            raise ValueError(f"y: has shape {list(truth.shape)}, the predictions {list(predicted.shape)}")
        row, number = self._tasks.questions(len(predicted), task)
        truth, predicted = truth.reshape(-1), predicted.reshape(-1)
        weight = None if sample_weight is None else np.asarray(sample_weight)[row]
        known = ~missing(truth)
        parts = [known & (number == each) for each in np.unique(number)]
        scores = [
            self._score(truth[part], predicted[part], None if weight is None else weight[part])
            for part in parts
            if part.any()
        ]
        return float(np.mean(scores))

    def _answers(self, X: Any, task: Any) -> tuple[Floats, Ints]:  # noqa: N803
        """Return the scores ``[Q, C]`` and the task ``[Q]`` of all questions."""
        check_is_fitted(self)
        inputs = torch.from_numpy(
            _as_floats(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))
        )
        row, number = self._tasks.questions(len(inputs), task)
        parts = []
        with torch.no_grad():
            for start in range(0, len(row), _ROWS):
                some = torch.from_numpy(row[start : start + _ROWS])
                members, place = torch.unique(some, return_inverse=True)
                asked = torch.from_numpy(number[start : start + _ROWS])
                parts.append(self.run_.model(inputs[members], place, asked).numpy())
        return np.concatenate(parts), number

    def _config(self, tasks: int, features: int, *, seed: int) -> RunConfig:
        return load_config(
            RunConfig,
            source={
                "seed": seed,
                "data": {"kind": "memory"},
                "model": {"stages": self._stages(tasks, features) if self.stages is None else self.stages},
                "trainer": {
                    "epochs": self.max_iter,
                    "batch_size": self.batch_size,
                    "lr": self.learning_rate,
                    "weight_decay": self.weight_decay,
                    # A few rows tell losses apart, where they tell no accuracies apart.
                    "monitor": "loss",
                    "patience": self.n_iter_no_change if self.early_stopping else None,
                },
            },
            overrides=self.overrides,
        )

    def _stages(self, tasks: int, features: int) -> list[dict[str, Any]]:
        """Return the default model: trunk, gated experts, cluster layer; for a single task the trunk alone.

        The layers that tasks share in part start near the identity: the model begins as hard sharing, and
        departs from it where a task gains by it.
        """
        widths = [int(width) for width in np.atleast_1d(self.hidden_layer_sizes)]
        width = widths[-1] if widths else features
        block = {"kind": "linear", "width": width, "residual": True, "init_scale": 0.1}
        stages: list[dict[str, Any]] = []
        if widths:
            stages.append({"kind": "hard", "name": "trunk", "block": {"kind": "mlp", "widths": widths}})
        if tasks > 1 and self.n_experts:
            gates = {"experts": self.n_experts, "density_penalty": self.density_penalty, "probability": 0.9}
            stages.append({"kind": "gated", "name": "experts", "mixture": "mean", "block": block, **gates})
        if tasks > 1 and self.n_clusters:
            grouped = {
                "clusters": min(self.n_clusters, tasks),
                "warmup": min(2, self.max_iter - 1),
                "every": 4,
            }
            stages.append({"kind": "cluster", "name": "clusters", "block": block, **grouped})
        return stages


def missing(values: Array) -> Array:
    """Return which values are None or NaN, ``[n]``."""
    if values.dtype == object:
        return np.array(
            [value is None or (isinstance(value, float) and np.isnan(value)) for value in values], dtype=bool
        )
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)


def _as_floats(values: Array) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(result).all():
        raise ValueError("X contains a value too large for float32: scale the features")
    return result

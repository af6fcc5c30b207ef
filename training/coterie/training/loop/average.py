"""A running average of a model's weights: what is judged and kept, while the weights themselves go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from coterie.training.model import MultiTaskModel


class WeightAverage:
    """An exponential moving average of the parameters; buffers, such as centroids, are as they are.

    It begins as a plain mean of the first updates. A parameter that is replaced by one of another shape, as
    at a freeze, begins anew.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._updates: dict[str, int] = {}
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: MultiTaskModel) -> None:
        """Take the weights after an update."""
        for name, parameter in model.named_parameters():
            mean = self._mean.get(name)
            if mean is None or mean.shape != parameter.shape:
                self._mean[name], self._updates[name] = parameter.detach().clone(), 1
                continue
            self._updates[name] += 1
            mean.lerp_(parameter, max(1 - self._decay, 1 / self._updates[name]))

    @contextmanager
    def in_place(self, model: MultiTaskModel) -> Iterator[None]:
        """Let the model have the average's weights for a while."""
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._put(model, self._mean)
        try:
            yield
        finally:
            self._put(model, before)

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return what a checkpoint keeps."""
        return self._mean, self._updates

    def restore(self, mean: dict[str, Tensor], updates: dict[str, int]) -> None:
        """Take back what ``state`` returned."""
        self._mean, self._updates = mean, dict(updates)

    @staticmethod
    @torch.no_grad()
    def _put(model: MultiTaskModel, weights: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            if name in weights and weights[name].shape == parameter.shape:
                parameter.copy_(weights[name])

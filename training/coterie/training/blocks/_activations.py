"""The activations a configuration can name."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["relu", "gelu", "tanh", "none"]

_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}
RISING: frozenset[Activation] = frozenset({"relu", "tanh", "none"})
"""Those that never fall: they can as well follow a max-pooling."""


def activation_module(name: Activation) -> nn.Module:
    """Return the activation as a module."""
    return _MODULES[name]()

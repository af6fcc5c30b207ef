"""Fully connected blocks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._activations import Activation, activation_module
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._shapes import InputShape

Width = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class Affine(nn.Linear):
    """An affine map, of which many may be computed together by ``vmap``."""

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to ``[R, D']``."""
        plain = states.dim() != 2 or torch.compiler.is_compiling()
        if plain or not self.training or torch.is_autocast_enabled(states.device.type):
            return super().forward(states)
        return _product(states, self.weight) + self.bias


class _Product(torch.autograd.Function):
    """States ``[..., R, D]`` times weights ``[..., D', D]``, ``-> [..., R, D']``.

    torch's own product of many states with many transposed weights has a gradient that lies transposed too:
    copying it to where the weights lie takes a fifth of a step.
    """

    @staticmethod
    def forward(states: Tensor, weight: Tensor) -> Tensor:
        return torch.matmul(states, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        needs_states, needs_weight = ctx.needs_input_grad
        return (
            torch.matmul(gradient, weight) if needs_states else None,
            torch.matmul(gradient.mT, states) if needs_weight else None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], states: Tensor, weight: Tensor
    ) -> tuple[Tensor, int]:
        del info
        of_states, of_weight = in_dims
        if of_weight is None:
            moved = states.movedim(of_states or 0, 0)
            return _product(moved.flatten(0, 1), weight).reshape(*moved.shape[:2], -1), 0
        weight = weight.movedim(of_weight, 0)
        if of_states is None:
            # The same states for all: one product with all weights below each other.
            return _product(states, weight.flatten(0, 1)).reshape(-1, *weight.shape[:2]), 1
        return _product(states.movedim(of_states, 0), weight), 0


def _product(states: Tensor, weight: Tensor) -> Tensor:
    result: Tensor = _Product.apply(states, weight)  # type: ignore[no-untyped-call]
    return result


class LinearConfig(BlockConfig):
    """One fully connected layer."""

    kind: Literal["linear"] = "linear"
    width: Width
    """Size of the output, D'."""
    activation: Activation = "relu"
    dropout: Rate = 0.0
    """Share of the outputs set to zero while training."""
    residual: bool = False
    """Add the input to the output; needs width = input size."""
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies the initial weights; with ``residual`` a small one starts near the identity."""

    def build(self, shape: InputShape) -> Linear:
        """Make the layer for vectors ``(D,)``."""
        return Linear(self, shape.dims)


class Linear(Block):
    """``[R, D] -> [R, D']``, an affine map, an activation and dropout."""

    batched = True

    def __init__(self, config: LinearConfig, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        size = InputShape(dims=shape).vector("linear")
        self.layer = Affine(size, config.width)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.mul_(config.init_scale)
        self.activation = activation_module(config.activation)
        self.dropout = nn.Dropout(config.dropout)
        self.residual = _check_residual(config.residual, size, config.width)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to ``[R, D']``."""
        result: Tensor = self.dropout(self.activation(self.layer(states)))
        return states + result if self.residual else result


class MlpConfig(BlockConfig):
    """Several fully connected layers."""

    kind: Literal["mlp"] = "mlp"
    widths: Annotated[tuple[Width, ...], Field(min_length=1)]
    """Size of every layer's output."""
    activation: Activation = "relu"
    last_activation: Activation | None = None
    """Activation of the last layer; the same as the others when not given."""
    dropout: Rate = 0.0
    residual: bool = False
    """Add the input to the output; needs the last width = input size."""

    def build(self, shape: InputShape) -> Mlp:
        """Make the layers for vectors ``(D,)``."""
        return Mlp(self, shape.dims)


class Mlp(Block):
    """``[R, D] -> [R, widths[-1]]``."""

    batched = True

    def __init__(self, config: MlpConfig, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        size = InputShape(dims=shape).vector("mlp")
        self.residual = _check_residual(config.residual, size, config.widths[-1])
        last = len(config.widths) - 1
        layers: list[nn.Module] = []
        for index, width in enumerate(config.widths):
            name = config.last_activation if index == last and config.last_activation else config.activation
            layers += [Affine(size, width), activation_module(name), nn.Dropout(config.dropout)]
            size = width
        self.layers = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to ``[R, D']``."""
        result: Tensor = self.layers(states)
        return states + result if self.residual else result


class LinearHead(Block):
    """A task's last layer, ``[R, (L,) D] -> [R, (L,) C]``; its weight is ``[D, C]``, its bias ``[C]``."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        layer = nn.Linear(size, width)
        self.weight = nn.Parameter(layer.weight.detach().T.contiguous())
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to scores ``[R, C]``, ``[R, L, D]`` to ``[R, L, C]``."""
        return nn.functional.linear(states, self.weight.T, self.bias)


def _check_residual(residual: bool, size: int, width: int) -> bool:
    if residual and size != width:
        raise ConfigError(f"a residual block keeps its size: its width is {width}, its input {size}")
    return residual

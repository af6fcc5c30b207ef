"""A stack of 2-D convolutions (Task Multi-Clustering, section 4: four layers of 32 filters)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._activations import RISING, Activation, activation_module
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape


class ConvConfig(BlockConfig):
    """Convolutions, each followed by an activation and 2 x 2 max-pooling."""

    kind: Literal["conv"] = "conv"
    filters: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 32, 32, 32)
    kernel: Annotated[int, Field(ge=1)] = 3
    pool: Annotated[int, Field(ge=1)] = 2
    """Side of the max-pooling after every layer; 1 pools nothing."""
    activation: Activation = "relu"
    dropout: Rate = 0.0
    channel_dropout: Rate = 0.0
    """Rate at which whole channels are dropped between layers (Tompson et al. 2015): neighbouring pixels say
    much the same, so that single ones would hardly be missed."""
    flatten: bool = True
    """Whether the result is a vector ``(C * H * W,)`` rather than an image ``(C, H, W)``."""

    def build(self, shape: InputShape) -> Conv:
        """Make the stack for images ``(C, H, W)``."""
        return Conv(self, shape)


class Conv(Block):
    """``[R, C, H, W] -> [R, C' * H' * W']``."""

    def __init__(self, config: ConvConfig, shape: InputShape) -> None:
        super().__init__()
        if shape.tokens or len(shape.dims) != 3 or None in shape.dims:
            raise ConfigError(f"block 'conv' takes images (C, H, W), but its input is {shape}")
        if config.kernel % 2 == 0:
            raise ConfigError(f"block 'conv' keeps sizes with an odd kernel: {config.kernel} is even")
        channels, height, width = (int(size or 0) for size in shape.dims)
        if min(height, width) // config.pool ** len(config.filters) < 1:
            raise ConfigError(
                f"block 'conv' pools {len(config.filters)} times by {config.pool}, which leaves nothing of "
                f"{height} x {width}: use fewer filters or a smaller pool"
            )
        layers: list[nn.Module] = []
        for number, filters in enumerate(config.filters):
            if number and config.channel_dropout:
                layers.append(nn.Dropout2d(config.channel_dropout))
            activation: list[nn.Module] = [activation_module(config.activation)]
            pool: list[nn.Module] = [nn.MaxPool2d(config.pool)] if config.pool > 1 else []
            # The largest of rising values rises from the largest: a quarter as many then need the activation.
            after = pool + activation if config.activation in RISING else activation + pool
            layers += [nn.Conv2d(channels, filters, config.kernel, padding=config.kernel // 2), *after]
            channels = filters
        if config.flatten:
            layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers, nn.Dropout(config.dropout))

    def forward(self, states: Tensor) -> Tensor:
        """Map images to features."""
        if not torch.compiler.is_exporting():
            # Convolutions of few channels are nearly twice as fast on a CPU with the channels last.
            states = states.contiguous(memory_format=torch.channels_last)
        result: Tensor = self.layers(states)
        return result

"""Blocks: the small networks that banks are made of.

A block maps the states of R inputs to R new states, ``[R, ...] -> [R, ...]``, and knows nothing of tasks.

    >>> import torch
    >>> from coterie.training.blocks import Linear, LinearConfig
    >>> Linear(LinearConfig(width=3), (5,))(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
"""

from typing import Annotated

from pydantic import Field

from coterie.training.blocks._base import Block, BlockConfig, build_block, output_shape
from coterie.training.blocks._conv import Conv, ConvConfig
from coterie.training.blocks._embedding_bag import NgramBag, NgramBagConfig
from coterie.training.blocks._inputs import ImageInput, Standardise
from coterie.training.blocks._linear import Linear, LinearConfig, LinearHead, Mlp, MlpConfig
from coterie.training.blocks._shapes import InputShape
from coterie.training.blocks._textcnn import TextCnn, TextCnnConfig

AnyBlockConfig = Annotated[
    LinearConfig | MlpConfig | ConvConfig | NgramBagConfig | TextCnnConfig, Field(discriminator="kind")
]
"""Every block a configuration can name; told apart by ``kind``."""

__all__ = [
    "AnyBlockConfig",
    "Block",
    "BlockConfig",
    "Conv",
    "ConvConfig",
    "ImageInput",
    "InputShape",
    "Linear",
    "LinearConfig",
    "LinearHead",
    "Mlp",
    "MlpConfig",
    "NgramBag",
    "NgramBagConfig",
    "Standardise",
    "TextCnn",
    "TextCnnConfig",
    "build_block",
    "output_shape",
]

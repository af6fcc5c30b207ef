"""Blocks: the small networks that banks are made of.

A block maps the states of R inputs to R new states, ``[R, ...] -> [R, ...]``, and knows nothing of tasks.

    >>> import torch
    >>> from coterie.training.blocks import Linear, LinearConfig
    >>> Linear(LinearConfig(width=3), (5,))(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from coterie.training.blocks._attention_pool import AttentionPool, AttentionPoolConfig
from coterie.training.blocks._base import (
    Block,
    BlockConfig,
    build_block,
    build_chain,
    output_shape,
    vector_of,
)
from coterie.training.blocks._conv import Conv, ConvConfig
from coterie.training.blocks._embedding_bag import NgramBag, NgramBagConfig
from coterie.training.blocks._han import Han, HanConfig
from coterie.training.blocks._hf import HfConfig, HfEncoder
from coterie.training.blocks._inputs import ImageInput, Standardise
from coterie.training.blocks._joined import Joined
from coterie.training.blocks._linear import Linear, LinearConfig, LinearHead, Mlp, MlpConfig
from coterie.training.blocks._lstm import Lstm, LstmConfig
from coterie.training.blocks._module import Module, ModuleConfig
from coterie.training.blocks._shapes import InputShape
from coterie.training.blocks._textcnn import TextCnn, TextCnnConfig
from coterie.training.blocks._transformer import Transformer, TransformerConfig
from coterie.training.blocks._views import ENCODERS as VIEW_ENCODERS
from coterie.training.blocks._views import Views
from coterie.training.blocks._word_chars import WordChars, WordCharsConfig
from coterie.training.blocks._words import VectorTraining, Words, WordsConfig

AnyBlockConfig = Annotated[
    LinearConfig
    | MlpConfig
    | ConvConfig
    | NgramBagConfig
    | TextCnnConfig
    | AttentionPoolConfig
    | WordCharsConfig
    | HanConfig
    | LstmConfig
    | TransformerConfig
    | WordsConfig
    | ModuleConfig
    | HfConfig,
    Field(discriminator="kind"),
]
"""Every block a configuration can name; told apart by ``kind``."""


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


Encoder = Annotated[tuple[AnyBlockConfig, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
"""A block, or several, one after the other."""

__all__ = [
    "VIEW_ENCODERS",
    "AnyBlockConfig",
    "AttentionPool",
    "AttentionPoolConfig",
    "Block",
    "BlockConfig",
    "Conv",
    "ConvConfig",
    "Encoder",
    "Han",
    "HanConfig",
    "HfConfig",
    "HfEncoder",
    "ImageInput",
    "InputShape",
    "Joined",
    "Linear",
    "LinearConfig",
    "LinearHead",
    "Lstm",
    "LstmConfig",
    "Mlp",
    "MlpConfig",
    "Module",
    "ModuleConfig",
    "NgramBag",
    "NgramBagConfig",
    "Standardise",
    "TextCnn",
    "TextCnnConfig",
    "Transformer",
    "TransformerConfig",
    "VectorTraining",
    "Views",
    "WordChars",
    "WordCharsConfig",
    "Words",
    "WordsConfig",
    "build_block",
    "build_chain",
    "output_shape",
    "vector_of",
]

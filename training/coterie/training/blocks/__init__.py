"""Blocks: the small networks that banks are made of.

A block maps the states of R inputs to R new states, ``[R, ...] -> [R, ...]``, and knows nothing of tasks.

    >>> import torch
    >>> from coterie.training.blocks import Linear, LinearConfig
    >>> Linear(LinearConfig(width=3), (5,))(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
"""

from typing import Annotated

from pydantic import Field

from coterie.training.blocks._attention_pool import AttentionPool, AttentionPoolConfig
from coterie.training.blocks._base import Block, BlockConfig, build_block, output_shape
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

__all__ = [
    "AnyBlockConfig",
    "AttentionPool",
    "AttentionPoolConfig",
    "Block",
    "BlockConfig",
    "Conv",
    "ConvConfig",
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
    "WordChars",
    "WordCharsConfig",
    "Words",
    "WordsConfig",
    "build_block",
    "output_shape",
]

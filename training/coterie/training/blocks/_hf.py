"""A local Hugging Face encoder as a trunk."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError, MissingExtraError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._module import make_constants
from coterie.training.blocks._shapes import InputShape
from coterie.training.yaml_config import AbsolutePath

_LONGEST = 512


class HfConfig(BlockConfig):
    """An encoder from a folder that ``save_pretrained`` wrote; nothing is ever downloaded."""

    any_padding: ClassVar[bool] = True

    kind: Literal["hf"] = "hf"
    folder: AbsolutePath
    """Holds ``config.json`` and the weights; its ``tokenizer.json`` belongs into ``data.tokens``."""
    trainable: bool = False
    """Whether the encoder is fine-tuned; otherwise its weights are constants."""
    pool: Literal["mean", "cls", "none"] = "mean"
    """A text's state: the mean of its tokens', the first token's, or all of them, a sequence."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Longer texts are cut after this many tokens; when not given, 512 or as many as the encoder takes."""

    def build(self, shape: InputShape) -> HfEncoder:
        """Load the encoder for tokens ``(L,)``.

        Raises:
            ConfigError: If the folder holds none, or if it does not fit the data's tokens.
            MissingExtraError: If transformers is not installed.
        """
        if not shape.tokens or len(shape.dims) != 1:
            raise ConfigError(f"block 'hf' takes tokens (length,), but its input is {shape}")
        model = self._load()
        known = int(model.config.vocab_size)
        advice = f"set data.tokens to {{tokenizer: file, file: {self.folder / 'tokenizer.json'}}}"
        if shape.vocabulary > known:
            raise ConfigError(
                f"folder: its encoder knows {known} tokens, the data has {shape.vocabulary}: {advice}"
            )
        pad = model.config.pad_token_id
        if pad is not None and pad != shape.pad_id:
            raise ConfigError(
                f"folder: its encoder pads with id {pad}, the data with {shape.pad_id}: {advice}"
            )
        longest = _positions(model)
        length = self.max_length or min(longest, _LONGEST)
        block = HfEncoder(self, model, length, shape.pad_id)
        try:
            with torch.no_grad():
                block.eval()(torch.full((1, length), max(shape.vocabulary - 1, 0)))
                block.train()
        except (IndexError, RuntimeError) as error:
            raise ConfigError(
                f"max_length: the encoder cannot take {length} tokens: it has {longest} positions, use fewer"
            ) from error
        return block

    def _load(self) -> Any:
        if not (self.folder / "config.json").is_file():
            what = "has no config.json" if self.folder.is_dir() else "is no folder"
            raise ConfigError(
                f"folder: {self.folder} {what}: give one that save_pretrained wrote; nothing is downloaded"
            )
        try:
            from transformers import AutoModel
            from transformers.utils import logging
        except ImportError as error:
            raise MissingExtraError("hf", "block 'hf'") from error
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            return AutoModel.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"folder: {self.folder} holds no encoder that can be loaded ({reason})"
            ) from error
        finally:
            if shown:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _positions(model: Any) -> int:
    """Return how many tokens a text may have, as far as the model says."""
    longest = int(getattr(model.config, "max_position_embeddings", _LONGEST))
    for part in model.modules():
        # RoBERTa and its kin count positions from the one after padding's.
        if isinstance(part, nn.Embedding) and part.num_embeddings == longest and part.padding_idx is not None:
            return longest - part.padding_idx - 1
    return longest


class HfEncoder(Block):
    """Token ids ``[R, L] -> [R, D]``, or ``[R, L, D]`` with padding all zeros."""

    def __init__(self, config: HfConfig, model: Any, max_length: int, pad_id: int) -> None:
        super().__init__()
        self.trainable = config.trainable
        self.pool = config.pool
        self.max_length = max_length
        self.pad_id = pad_id
        for unused in ("pooler", "lm_head"):
            if getattr(model, unused, None) is not None:
                setattr(model, unused, None)
        self.encoder = model
        if not config.trainable:
            model.requires_grad_(False)
            make_constants(model)

    def train(self, mode: bool = True) -> HfEncoder:
        """Set the mode; a frozen encoder has no dropout in either."""
        super().train(mode)
        if not self.trainable:
            self.encoder.eval()
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids ``[R, L]`` to states."""
        tokens = tokens[:, : self.max_length]
        # The first token counts as one even in a text of padding alone: a softmax over nothing is no number.
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        present = (tokens != self.pad_id) | first
        states: Tensor = self.encoder(
            input_ids=tokens, attention_mask=present.to(torch.int64)
        ).last_hidden_state
        if self.pool == "cls":
            return states[:, 0]
        weight = present.unsqueeze(-1).to(states.dtype)
        states = states * weight
        return states if self.pool == "none" else states.sum(dim=1) / weight.sum(dim=1)

"""The tokenizer: trained on a data set's own texts, or read from a file."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from coterie.runtime.errors import DataError
from coterie.runtime.manifest import TextSpec, WordSpec
from coterie.training.data._config import TokenOptions
from coterie.training.data._dataset import Text

FILE = "tokenizer.json"
PADDING = "[PAD]"
UNKNOWN = "[UNK]"


def make_tokenizer(texts: Sequence[str], options: TokenOptions) -> Text:
    """Train a tokenizer, or read the file that the options name.

    Raises:
        DataError: If the file cannot be used.
    """
    return train_tokenizer(texts, options) if options.file is None else read_tokenizer(options.file, options)


def read_tokenizer(path: Path, options: TokenOptions) -> Text:
    """Read a tokenizer; padding has the id that the file gives it.

    Raises:
        DataError: If the file is no tokenizer, or has no padding token.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise DataError(
            f"{path.name} is no tokenizer that can be read: give the tokenizer.json of the tokenizers library"
        ) from error
    raw = json.loads(text)
    known = [token for token in raw.get("added_tokens") or () if "pad" in token["content"].lower()]
    pad = raw["padding"]["pad_id"] if raw.get("padding") else known[0]["id"] if known else None
    if pad is None:
        raise DataError(
            f"{path.name} has no padding token: add one as a special token, such as [PAD], and save it again"
        )
    return Text(
        tokenizer=text,
        spec=TextSpec(tokenizer=FILE, max_length=options.max_length, pad_id=pad),
        vocabulary=tokenizer.get_vocab_size(),
    )


def train_tokenizer(texts: Sequence[str], options: TokenOptions) -> Text:
    """Train a tokenizer; padding has id 0, the unknown token id 1. The same texts give the same tokenizer."""
    special = [PADDING, UNKNOWN]
    trainer: trainers.Trainer
    if options.tokenizer == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=options.vocabulary,
            min_frequency=options.min_frequency,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        words = options.tokenizer == "words"
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if words else pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(
            vocab_size=options.vocabulary,
            min_frequency=options.min_frequency,
            special_tokens=special,
            show_progress=False,
        )
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if options.lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.train_from_iterator(iter(texts), trainer=trainer, length=len(texts))
    return Text(
        tokenizer=tokenizer.to_str(),
        spec=TextSpec(tokenizer=FILE, max_length=options.max_length, pad_id=0),
        vocabulary=tokenizer.get_vocab_size(),
    )


def train_words(texts: Sequence[Sequence[str]], options: TokenOptions) -> Text:
    """Train the vocabularies of words and of their characters, which keep their case, on lists of words."""
    known = train_tokenizer([" ".join(words) for words in texts], options)
    composed = (unicodedata.normalize("NFC", word) for words in texts for word in words)
    count = Counter(character for word in composed for character in word)
    frequent = sorted(character for character, times in count.items() if times >= options.min_frequency)
    spec = WordSpec(length=options.word_length, characters="".join(frequent))
    return replace(known, spec=known.spec.model_copy(update={"words": spec}))

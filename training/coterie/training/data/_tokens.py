"""Training a tokenizer on a data set's own texts."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from coterie.runtime.manifest import TextSpec
from coterie.training.data._config import TokenOptions
from coterie.training.data._dataset import Text

FILE = "tokenizer.json"
PADDING = "[PAD]"
UNKNOWN = "[UNK]"


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

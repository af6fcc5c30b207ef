"""Words to ids: a number for each word, and one for each of its characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from tokenizers import Tokenizer

from coterie.runtime.manifest import FIRST_CHARACTER, WordSpec

_UNKNOWN = 1


class WordIds:
    """Gives words their ids, ``[L, 1 + W]``: the word's own, then its first W characters'.

    Attributes:
        limits: For each of those columns the number of ids.
    """

    def __init__(self, tokenizer: Tokenizer, spec: WordSpec, pad_id: int) -> None:
        """Take the words of a tokenizer's vocabulary; the padding's id is no word's."""
        self._normalise = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
        self._words = {
            word: number for word, number in tokenizer.get_vocab().items() if number not in (pad_id, _UNKNOWN)
        }
        self._characters = {
            character: number for number, character in enumerate(spec.characters, start=FIRST_CHARACTER)
        }
        self._length = spec.length
        self.limits = [tokenizer.get_vocab_size(), *[spec.ids] * spec.length]

    def __call__(self, words: Sequence[str]) -> list[list[int]]:
        """Return each word's ids; letters keep their case."""
        return [self._ids(word) for word in words]

    def _ids(self, word: str) -> list[int]:
        ids = [self._words.get(self._normalise(word), _UNKNOWN)]
        composed = unicodedata.normalize("NFC", word)[: self._length]
        ids += [self._characters.get(character, _UNKNOWN) for character in composed]
        return ids + [0] * (1 + self._length - len(ids))

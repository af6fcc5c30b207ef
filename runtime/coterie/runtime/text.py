"""Raw text, or lists of words, to ids, with a tokenizer that the ``tokenizers`` library trained and wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from coterie.runtime._words import WordIds
from coterie.runtime.errors import BundleError, InvalidInputError
from coterie.runtime.manifest import TextSpec

Text = str | Sequence[str]
"""A text; where the model reads words, also a list of words."""


class TextEncoder:
    """Turns texts into the graphs' token input; deterministic, and safe to use from many threads.

    Attributes:
        spec: Longest text in tokens, and the id that fills up the shorter ones.
        vocabulary: Number of token ids.
        words: Gives words their ids, where the model reads words with their characters.
    """

    def __init__(self, tokenizer: str, spec: TextSpec) -> None:
        """Read the tokenizer from its JSON text.

        Raises:
            BundleError: If the text is no tokenizer.
        """
        with _told(f"{spec.tokenizer} is not a file of the tokenizers library"):
            self._tokenizer = Tokenizer.from_str(tokenizer)
        # A file may carry settings of its own; the manifest's are the ones that were trained with.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length)
        self.spec = spec
        self.vocabulary: int = self._tokenizer.get_vocab_size()
        self.words = None if spec.words is None else WordIds(self._tokenizer, spec.words, spec.pad_id)

    @classmethod
    def load(cls, path: Path, spec: TextSpec) -> TextEncoder:
        """Read a tokenizer from a file, or from the file that ``spec`` names in a folder.

        Raises:
            BundleError: If the file cannot be read or is no tokenizer.
        """
        file = path / Path(spec.tokenizer).name if path.is_dir() else path
        try:
            tokenizer = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise BundleError(
                f"cannot read the tokenizer {file.name}: {reason}; export the bundle again"
            ) from error
        return cls(tokenizer, spec)

    def tokens(self, texts: Sequence[Text], *, first: int = 0) -> list[list[Any]]:
        """Return each text's token ids, at most ``spec.max_length`` of them, without padding; possibly none.

        A word with its characters is a list of ids. Words are what stands between spaces; none is cut off.

        Args:
            texts: The texts.
            first: The number of the first one, for a message.

        Raises:
            InvalidInputError: If an element is not a string, or not one that UTF-8 can hold; if it is neither
                that nor a list of words, or has more than ``spec.max_length`` words.
            BundleError: If the tokenizer contradicts itself.
        """
        if isinstance(texts, str | bytes):
            raise InvalidInputError("texts are one string: put it in a list")
        if self.words is not None:
            divided = [self._divided(index, text) for index, text in enumerate(texts, first)]
            with _told(f"{self.spec.tokenizer} cannot take words"):
                return [self.words(words) for words in divided]
        for index, text in enumerate(texts, first):
            _check(index, text)
        pad = self.spec.pad_id
        with _told(f"{self.spec.tokenizer} cannot take a text"):
            encoded = [item.ids for item in self._tokenizer.encode_batch_fast(list(texts))]
        # Whoever writes the padding token's own name into a text adds nothing to it.
        return [[token for token in ids if token != pad] if pad in ids else ids for ids in encoded]

    def encode(self, texts: Sequence[Text], *, first: int = 0) -> npt.NDArray[np.int64]:
        """Return the texts' token ids, ``[R, L]`` or ``[R, L, 1 + W]``, padded on the right with the pad id.

        L is the length of the longest text of the batch: at least 1, at most ``spec.max_length``.

        Args:
            texts: R texts.
            first: The number of the first one, for a message.

        Raises:
            InvalidInputError: If an element is no text, is empty or has no token; its index is named.
        """
        encoded = self.tokens(texts, first=first)
        for index, (text, ids) in enumerate(zip(texts, encoded, strict=True), first):
            if not ids or (isinstance(text, str) and not text.strip()):
                raise InvalidInputError(f"text {index} is empty: every text needs at least one word")
        length = max(map(len, encoded), default=1)
        columns = () if self.words is None else (len(self.words.limits),)
        result = np.full((len(encoded), length, *columns), self.spec.pad_id, dtype=np.int64)
        for row, ids in zip(result, encoded, strict=True):
            row[: len(ids)] = ids
        return result

    def _divided(self, index: int, text: Text) -> Sequence[str]:
        """Return the words of one text."""
        if isinstance(text, str):
            _check(index, text)
            words: Sequence[str] = text.split()
        elif isinstance(text, list | tuple):
            words = text
            for word in words:
                _check(index, word)
                if not word.strip():
                    raise InvalidInputError(f"text {index} has an empty word: leave it out")
        else:
            raise InvalidInputError(
                f"text {index} is a {type(text).__name__}: give a string or a list of words"
            )
        if len(words) > self.spec.max_length:
            raise InvalidInputError(
                f"text {index} has {len(words)} words, more than {self.spec.max_length}: divide it"
            )
        return words


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the library raises, plain ``Exception`` and worse, into a ``BundleError``."""
    try:
        yield
    except BaseException as error:
        # A panic of the library is no Exception, lest anybody go on; only this tokenizer is lost.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BundleError(f"{what} ({error}): export the bundle again") from error


def _check(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"text {index} is a {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"text {index} has a lone surrogate at character {error.start}: it is not valid Unicode"
        ) from error

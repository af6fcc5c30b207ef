"""Raw text to token ids, with a tokenizer that the ``tokenizers`` library trained and wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from coterie.runtime.errors import BundleError, InvalidInputError
from coterie.runtime.manifest import TextSpec


class TextEncoder:
    """Turns texts into the graphs' token input; deterministic, and safe to use from many threads.

    Attributes:
        spec: Longest text in tokens, and the id that fills up the shorter ones.
        vocabulary: Number of token ids.
    """

    def __init__(self, tokenizer: str, spec: TextSpec) -> None:
        """Read the tokenizer from its JSON text.

        Raises:
            BundleError: If the text is no tokenizer.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer)
        except Exception as error:  # the library raises plain Exception
            raise BundleError(
                f"{spec.tokenizer} is not a file of the tokenizers library ({error}): export the bundle again"
            ) from error
        # A file may carry settings of its own; the manifest's are the ones that were trained with.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length)
        self.spec = spec
        self.vocabulary: int = self._tokenizer.get_vocab_size()

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

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, at most ``spec.max_length`` of them, without padding; possibly none.

        Raises:
            InvalidInputError: If an element is not a string, or not one that UTF-8 can hold.
        """
        if isinstance(texts, str | bytes):
            raise InvalidInputError("texts are one string: put it in a list")
        for index, text in enumerate(texts):
            _check(index, text)
        pad = self.spec.pad_id
        encoded = [item.ids for item in self._tokenizer.encode_batch_fast(list(texts))]
        # Whoever writes the padding token's own name into a text adds nothing to it.
        return [[token for token in ids if token != pad] if pad in ids else ids for ids in encoded]

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the texts' token ids, ``[R, L]``, padded on the right with ``spec.pad_id``.

        L is the length of the longest text of the batch: at least 1, at most ``spec.max_length``.

        Raises:
            InvalidInputError: If an element is not a string, is empty or has no token; its index is named.
        """
        encoded = self.tokens(texts)
        for index, ids in enumerate(encoded):
            if not ids or not texts[index].strip():
                raise InvalidInputError(f"text {index} is empty: every text needs at least one word")
        length = max(map(len, encoded), default=1)
        result = np.full((len(encoded), length), self.spec.pad_id, dtype=np.int64)
        for row, ids in zip(result, encoded, strict=True):
            row[: len(ids)] = ids
        return result


def _check(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"text {index} is a {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"text {index} has a lone surrogate at character {error.start}: it is not valid Unicode"
        ) from error

"""Word vectors: read from a file, or learned from the data's own texts (Mikolov et al. 2013, word2vec)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer
from torch import from_numpy

from coterie.runtime.durable import write_file
from coterie.runtime.errors import CheckpointError, DataError, MissingExtraError
from coterie.runtime.text import TextEncoder
from coterie.training.blocks import VectorTraining, WordsConfig
from coterie.training.config import RunConfig
from coterie.training.data import Dataset, TokenInputs
from coterie.training.model import MultiTaskModel
from coterie.training.stages import BankStage

FILE = "vectors.safetensors"

_DEVIATION = 0.5
"""Of the learned vectors' numbers: as they are, they grow with the length of their training."""

Floats = npt.NDArray[np.float32]


def words_of(tokenizer: str) -> tuple[str, ...]:
    """Return what each token id of a tokenizer stands for."""
    known = Tokenizer.from_str(tokenizer).get_vocab()
    words = [""] * (1 + max(known.values()))
    for word, token in known.items():
        words[token] = word
    return tuple(words)


def give_vectors(model: MultiTaskModel, config: RunConfig, dataset: Dataset, folder: Path) -> None:
    """Put the configured word vectors into a model, and keep them in the run folder for when it is resumed.

    A word without a vector keeps the random one that it has, as long as the others are on average.

    Args:
        model: The model, freshly made.
        config: The run's configuration.
        dataset: What to learn vectors from.
        folder: The run folder.

    Raises:
        DataError: If a file of vectors cannot be used.
        MissingExtraError: If vectors are to be learned, and gensim is not installed.
    """
    stages = model.each_stage()
    first = len(stages) - len(config.model.stages) - 1
    kept = _kept(folder)
    for stage, configured in zip(stages[first:-1], config.model.stages, strict=True):
        if not isinstance(stage, BankStage):
            continue
        for name, block in configured.blocks().items():
            if not isinstance(block, WordsConfig) or (block.vectors is None and block.train is None):
                continue
            key = f"{stage.name}.{name}" if name else stage.name
            if key not in kept:
                kept[key] = _completed(_found(block, dataset, config.seed), config.seed)
                write_file(folder / FILE, save(kept))
            stage.bank.fill("table", from_numpy(kept[key]), module=name)


def _found(block: WordsConfig, dataset: Dataset, seed: int) -> Floats:
    """Return the vectors that a block is configured to begin with, ``[V, D]``; NaN where there is none."""
    if block.vectors is not None:
        if dataset.text is None:
            raise DataError("word vectors are of the words of texts, but the data's inputs are none")
        return read_vectors(block.vectors, words_of(dataset.text.tokenizer), block.width)
    return learn_vectors(dataset, block.train or VectorTraining(), block.width, seed)


def read_vectors(path: Path, words: Sequence[str], width: int) -> Floats:
    """Read the vectors of known words from a text file in GloVe's format.

    Returns:
        ``[V, D]``; NaN for words that the file does not have.

    Raises:
        DataError: If the file cannot be read, a line is no word with ``width`` numbers, or no word is known.
    """
    ids = {word: index for index, word in enumerate(words)}
    result = np.full((len(words), width), np.nan, dtype=np.float32)
    known = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                cells = line.rstrip("\n").split(" ")
                if number == 1 and len(cells) == 2:
                    continue  # word2vec's own text format begins with a line of two counts
                # Some words hold spaces themselves, so the numbers are what comes last; none begins a file.
                word, values = " ".join(cells[:-width]), cells[-width:]
                plain = len(cells) == width + 1
                if plain and word not in ids:
                    continue
                if not (plain or (number > 2 and word)) or not _numbers(values, result, ids.get(word)):
                    raise DataError(
                        f"{path.name}:{number}: is no word and {width} numbers between spaces: give block "
                        "'words' the file's own width, or correct the line"
                    )
                known += word in ids
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as UTF-8 text: {type(error).__name__}") from error
    if not known:
        raise DataError(
            f"{path.name} has no vector for any of the data's {len(words)} tokens: is it of the same "
            "language, and lower-cased alike?"
        )
    return result


def learn_vectors(dataset: Dataset, options: VectorTraining, width: int, seed: int) -> Floats:
    """Learn vectors from the texts of the train split and the unlabeled ones.

    Returns:
        ``[V, D]``; NaN for tokens that are in none of them.

    Raises:
        DataError: If the data's inputs are no texts.
        MissingExtraError: If gensim is not installed.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise MissingExtraError("vectors", "learning word vectors") from error
    if dataset.text is None:
        raise DataError("word vectors are learned from texts, but the data's inputs are none")
    inputs = dataset.splits["train"].inputs
    if not isinstance(inputs, TokenInputs):
        raise DataError("word vectors are learned from texts, but the data's inputs are more than these")
    encoder = TextEncoder(dataset.text.tokenizer, dataset.text.spec)
    texts = [inputs.batch(np.array([row]))[0].tolist() for row in range(len(inputs))]
    texts += encoder.tokens(dataset.unlabeled)
    corpus = [[str(token) for token in text] for text in texts]
    # One worker: with several, the order of their updates would be up to chance.
    learned = Word2Vec(
        corpus,
        vector_size=width,
        window=options.window,
        negative=options.negative,
        sg=int(options.skip_gram),
        epochs=options.epochs,
        min_count=1,
        seed=seed + 1,
        workers=1,
    ).wv
    result = np.full((dataset.text.vocabulary, width), np.nan, dtype=np.float32)
    for token, place in learned.key_to_index.items():
        result[int(token)] = learned.vectors[place]
    scale: Floats = result * np.float32(_DEVIATION / max(float(np.nanstd(result)), 1e-8))
    return scale


def _numbers(values: Sequence[str], result: Floats, row: int | None) -> bool:
    """Parse a line's numbers into a row of the result, if it is of a known word; return whether they are."""
    try:
        parsed = np.array(values, dtype=np.float32)
    except ValueError:
        return False
    if row is not None:
        result[row] = parsed
    return len(parsed) == result.shape[1] and bool(np.isfinite(parsed).all())


def _completed(found: Floats, seed: int) -> Floats:
    """Give words without a vector a random one, as large as the others' are on average."""
    lacking = np.isnan(found)
    drawn = np.random.default_rng(seed).standard_normal(found.shape, dtype=np.float32)
    completed: Floats = np.where(lacking, drawn * np.float32(np.nanstd(found)), found)
    return completed


def _kept(folder: Path) -> dict[str, Floats]:
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: delete it, and it will be made again") from error

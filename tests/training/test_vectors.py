"""Word vectors: from a file, or learned from the data's own texts, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from coterie.runtime.errors import CheckpointError, DataError
from coterie.training import load_run, train, vectors
from coterie.training.blocks import VectorTraining
from coterie.training.config import RunConfig
from coterie.training.data import TableConfig, load_data
from coterie.training.vectors import learn_vectors, read_vectors, words_of
from coterie.training.yaml_config import load_config

WORDS = ("[PAD]", "[UNK]", "good", "bad", "new york")


def corpus(folder: Path) -> Path:
    """Texts of two tasks; the unlabeled ones say what else stands beside ``good`` and ``bad``."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(120):
        label = index % 2
        kind = "good" if label else "bad"
        filler = " ".join(f"w{number}" for number in rng.integers(0, 12, 4))
        split = ("train", "train", "dev", "unlabeled")[index // 2 % 4]
        rows.append((f"{kind} {filler}", f"task {index % 3}", label, split))
    text, task, target, split = (list(column) for column in zip(*rows, strict=True))
    path = folder / "texts.parquet"
    pq.write_table(pa.table({"text": text, "task": task, "y": target, "split": split}), path)
    return path


def table(path: Path, unlabeled: tuple[str, ...] = ("unlabeled",)) -> TableConfig:
    split = {"column": "split", "unlabeled": unlabeled, "ignore": ["*"]}
    return load_config(
        TableConfig, source={"path": path, "text": "text", "task": "task", "target": "y", "split": split}
    )


def run_config(data: TableConfig, words: dict[str, object]) -> RunConfig:
    stages = [
        {"kind": "hard", "name": "words", "block": {"kind": "words", "width": 8, **words}},
        {"kind": "hard", "block": {"kind": "lstm", "width": 4, "pool": "max"}},
    ]
    trainer = {"epochs": 1, "threads": 1}
    source = {"data": data.model_dump(), "model": {"stages": stages}, "trainer": trainer}
    return load_config(RunConfig, source=source)


def test_a_files_vectors_are_found_by_word(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("good 1 2.5\nunheard 0 0\nnew york -1 3e-1\n", encoding="utf-8")
    found = read_vectors(path, WORDS, 2)
    np.testing.assert_allclose(found[2], [1, 2.5])
    np.testing.assert_allclose(found[4], [-1, 0.3])
    assert np.isnan(found[[0, 1, 3]]).all()
    path.write_text("2 2\ngood 1 2.5\nbad 0 0\n", encoding="utf-8")  # word2vec's own header
    np.testing.assert_allclose(read_vectors(path, WORDS, 2)[2:4], [[1, 2.5], [0, 0]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good 1 2\nbad 1\n", "glove.txt:2: is no word and 2 numbers"),
        (b"good 1 2 3\n", "the file's own width"),
        (b"good 1 two\n", "glove.txt:1: is no word and 2 numbers"),
        (b"good 1 nan\n", "is no word and 2 numbers"),
        (b"unheard 1 2\n", "no vector for any of the data's 5 tokens"),
        (b"\xff\xfe 1 2\n", "cannot be read"),
    ],
)
def test_a_file_that_is_none_of_vectors_is_refused_with_its_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "glove.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_vectors(path, WORDS, 2)
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(tmp_path / "none.txt", WORDS, 2)


def test_the_same_texts_give_the_same_vectors_and_unlabeled_ones_count(tmp_path: Path) -> None:
    path = corpus(tmp_path)
    data = load_data(table(path))
    assert len(data.unlabeled) == 30
    options = VectorTraining(epochs=2)
    first, again = (learn_vectors(data, options, 8, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    without = load_data(table(path, unlabeled=()))
    assert not without.unlabeled
    assert without.sha256 != data.sha256
    known = ~np.isnan(learn_vectors(without, options, 8, 3))
    assert not np.allclose(learn_vectors(without, options, 8, 3)[known], first[known])
    words = words_of(data.text.tokenizer)
    assert np.isnan(first[0]).all()  # padding is in no text
    assert np.isfinite(first[words.index("good")]).all()


def test_learned_vectors_are_kept_in_the_run_folder_and_learned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(table(corpus(tmp_path)), {"train": {"epochs": 1}, "trainable": False})
    folder = tmp_path / "run"
    run = train(config, folder)
    vectors_of = run.model.each_stage()[0].bank.constants["table"]
    assert (folder / vectors.FILE).is_file()

    def forbidden(*_: object) -> None:
        raise AssertionError("the vectors are there already")

    monkeypatch.setattr(vectors, "learn_vectors", forbidden)
    train(config, folder)  # resumes
    tokenizer = folder / "tokenizer.json"
    whole = tokenizer.read_bytes()
    tokenizer.write_bytes(whole[:-9])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_run(folder)
    tokenizer.write_bytes(whole)
    (tmp_path / "texts.parquet").unlink()
    again = load_run(folder)
    torch.testing.assert_close(again.model.each_stage()[0].bank.constants["table"], vectors_of)
    inputs = torch.tensor([[2, 3, 4]])
    one, first = torch.tensor([0]), torch.tensor([0])
    torch.testing.assert_close(again.model(inputs, one, first), run.model(inputs, one, first))


def test_fixed_vectors_stay_and_trainable_ones_learn(tmp_path: Path) -> None:
    data = table(corpus(tmp_path))
    glove = tmp_path / "glove.txt"
    words = words_of(load_data(data).text.tokenizer)
    glove.write_text("".join(f"{word} {'0.5 ' * 7}1\n" for word in words[2:]), encoding="utf-8")
    for trainable in (False, True):
        config = run_config(data, {"vectors": str(glove), "trainable": trainable})
        bank = train(config, tmp_path / f"run {trainable}").model.each_stage()[0].bank
        held = bank.weights["table"][0] if trainable else bank.constants["table"]
        given = torch.tensor([0.5] * 7 + [1.0]).expand(len(words) - 2, 8)
        assert torch.equal(held[2:], given) is not trainable
        assert held[1].abs().sum() > 0  # the unknown word has a vector too

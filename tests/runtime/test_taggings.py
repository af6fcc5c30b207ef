"""Lists of words in, a tag for each of them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models, normalizers

from coterie.runtime import InvalidInputError, Prediction, TaskSpec, TextSpec
from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._inputs import as_inputs
from coterie.runtime.manifest import Manifest, TensorSpec, WordSpec
from coterie.runtime.text import TextEncoder

VOCABULARY = {"[pad]": 0, "[unk]": 1, "the": 2, "cat": 3, "café": 4}
POS = TaskSpec(name="pos", kind="tagging", labels=("D", "N", "V"))
CASE = TaskSpec(name="case", kind="tagging", labels=("no", "yes"))


@pytest.fixture
def encoder() -> TextEncoder:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[unk]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = WordSpec(length=3, characters="Tacehté")
    spec = TextSpec(tokenizer="tokenizer.json", max_length=4, words=words)
    return TextEncoder(tokenizer.to_str(), spec)


@pytest.fixture
def bundle(encoder: TextEncoder, tmp_path: Path) -> Bundle:
    tensor = TensorSpec(name="tokens", dtype="int64", shape=(None, None, 4))
    manifest = Manifest.model_construct(inputs=(tensor,), text=encoder.spec)
    return Bundle(tmp_path, manifest, encoder)


def test_a_word_is_its_id_and_its_characters_in_their_own_case(encoder: TextEncoder) -> None:
    ids = encoder.encode([["The", "cat"], ["cats"]])
    # T and t are two characters of one word; s is not known, and the fourth character is not read.
    assert ids.tolist() == [[[2, 2, 6, 5], [3, 4, 3, 7]], [[1, 4, 3, 7], [0, 0, 0, 0]]]


def test_short_words_are_filled_up_and_unknown_characters_have_an_id(encoder: TextEncoder) -> None:
    assert encoder.encode([["a!", "x"]]).tolist() == [[[1, 3, 1, 0], [1, 1, 0, 0]]]


def test_composed_and_decomposed_letters_are_the_same(encoder: TextEncoder) -> None:
    assert (encoder.encode([["cafe\u0301"]]) == encoder.encode([["café"]])).all()
    assert encoder.encode([["café"]])[0, 0, 0] == 4


def test_a_text_is_what_stands_between_spaces(encoder: TextEncoder) -> None:
    assert (encoder.encode(["  the cat\n the "]) == encoder.encode([("the", "cat", "the")])).all()


def test_nobody_writes_padding_into_a_sentence(encoder: TextEncoder) -> None:
    assert encoder.encode([["[PAD]", "[UNK]"]])[0, :, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text 1 is empty"),
        ([], "text 1 is empty"),
        (["the", " "], "text 1 has an empty word"),
        (["the", 3], "text 1 is a int, not a string"),
        (3, "text 1 is a int: give a string or a list of words"),
        ("a b c d e", "text 1 has 5 words, more than 4: divide it"),
    ],
)
def test_what_is_no_sentence_is_refused_with_its_index(encoder: TextEncoder, text: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        encoder.encode(["the", text])


def tokens_of(bundle: Bundle, inputs: Any) -> npt.NDArray[Any]:
    tensors, rows = as_inputs(bundle, inputs)
    (tokens,) = tensors.values()
    assert len(tokens) == rows
    return tokens


@pytest.mark.parametrize("inputs", ["the cat", ["the cat"], [["the", "cat"]], (("the", "cat"),)])
def test_inputs_are_texts_or_lists_of_words(bundle: Bundle, inputs: Any) -> None:
    assert tokens_of(bundle, inputs)[0, :, 0].tolist() == [2, 3]


def test_inputs_may_be_ids(bundle: Bundle) -> None:
    ids = [[[2, 2, 0, 0], [0, 0, 0, 0]]]
    assert tokens_of(bundle, ids).tolist() == ids
    assert tokens_of(bundle, []).shape == (0, 1, 4)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[[5, 0, 0, 0]]], "a token id outside 0 to 4 in row 0"),
        ([[[2, 0, 9, 0]]], "a token id outside 0 to 8 in row 0"),
        ([[[2, 0, 0, 0]], [[0, 0, 0, 0]]], "padding before a word, or no word, in row 1"),
        ([[[0, 0, 0, 0], [2, 0, 0, 0]]], "padding before a word, or no word, in row 0"),
        ([[[2, 0, 0]]], r"has shape \[1, 1, 3\], expected \[R, L, 4\]"),
    ],
)
def test_ids_that_no_sentence_has_are_refused(bundle: Bundle, ids: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_inputs(bundle, ids)


def test_texts_of_other_bundles_are_no_lists(encoder: TextEncoder, bundle: Bundle) -> None:
    plain = TextEncoder(encoder._tokenizer.to_str(), TextSpec(tokenizer="t", max_length=4))
    tokens = TensorSpec(name="tokens", dtype="int64", shape=(None, None))
    manifest = Manifest.model_construct(inputs=(tokens,), text=plain.spec)
    with pytest.raises(InvalidInputError, match="text of shape"):
        as_inputs(Bundle(bundle.path, manifest, plain), [["the", "cat"]])


def prediction(*specs: TaskSpec) -> Prediction:
    scores = np.array([[[3, 1, 0], [0, 2, 1]], [[0, 1, 0], [9, 9, 9]]], dtype=np.float32)
    task = np.arange(2) % len(specs)
    return Prediction(specs, task, scores, scores / 10, np.array([2, 1]))


def test_a_result_has_a_tag_and_numbers_for_each_word() -> None:
    first, second = prediction(POS)
    assert (first.label, second.label) == (("D", "N"), ("N",))
    assert second.scores == ({"D": 0.0, "N": 1.0, "V": 0.0},)
    assert isinstance(first.probabilities, tuple)
    assert [list(word) for word in first.probabilities] == [["D", "N", "V"]] * 2


def test_labels_of_one_tagging_or_of_several_are_a_matrix_with_empty_ends() -> None:
    label = prediction(POS).label
    assert label is not None
    assert label.tolist() == [["D", "N"], ["N", ""]]
    both = prediction(POS, CASE)
    assert both.label_texts() == [["D", "N"], ["yes", ""]]
    assert both[1].probabilities == ({"no": 0.0, "yes": pytest.approx(0.1)},)


def test_tags_of_spans_are_compared_by_f1_and_others_by_accuracy() -> None:
    assert POS.metric == "accuracy"
    assert TaskSpec(name="name", kind="tagging", labels=("B-x", "I-x", "O")).metric == "f1"
    assert TaskSpec(name="name", kind="classification", labels=("B-x", "I-x", "O")).metric == "accuracy"
    with pytest.raises(ValueError, match="a tagging with fewer than two classes"):
        TaskSpec(name="name", kind="tagging", labels=("O",))

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from coterie.runtime.errors import BundleError, InvalidInputError
from coterie.runtime.manifest import TextSpec
from coterie.runtime.text import TextEncoder

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "film": 4}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(length=9, pad_id=4)  # settings of the file, which the spec overrules
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def encoder(path: Path, max_length: int = 4, pad_id: int = 0) -> TextEncoder:
    return TextEncoder.load(path, TextSpec(tokenizer="tokenizer.json", max_length=max_length, pad_id=pad_id))


def test_texts_are_padded_to_the_longest_of_the_batch(path: Path) -> None:
    tokens = encoder(path).encode(["good film", "bad", "good good bad"])
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [[2, 4, 0], [3, 0, 0], [2, 2, 3]]


def test_the_padding_id_is_the_specs(path: Path) -> None:
    assert encoder(path, pad_id=1).encode(["good film", "bad"]).tolist() == [[2, 4], [3, 1]]


def test_long_texts_are_cut(path: Path) -> None:
    assert encoder(path, max_length=2).encode(["good film bad", "bad"]).tolist() == [[2, 4], [3, 0]]


def test_unknown_words_have_the_unknown_id(path: Path) -> None:
    assert encoder(path).encode(["a good Ünknown"]).tolist() == [[1, 2, 1]]


def test_no_text_is_an_empty_batch_of_length_one(path: Path) -> None:
    assert encoder(path).encode([]).shape == (0, 1)


def test_a_folder_is_taken_with_the_specs_file_name(path: Path) -> None:
    assert encoder(path.parent).encode(["good"]).tolist() == [[2]]
    assert encoder(path).vocabulary == len(VOCABULARY)


@pytest.mark.parametrize("empty", ["", "   ", "\n\t", "[PAD]", " [PAD] [PAD]"])
def test_an_empty_text_is_refused_with_its_index(path: Path, empty: str) -> None:
    with pytest.raises(InvalidInputError, match="text 1 is empty"):
        encoder(path).encode(["good", empty])


def test_the_padding_token_inside_a_text_adds_nothing(path: Path) -> None:
    assert encoder(path).encode(["good [PAD] film"]).tolist() == [[2, 4]]


@pytest.mark.parametrize("wrong", [None, 3, b"good", ["good"]])
def test_what_is_no_string_is_refused_with_its_index(path: Path, wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"text 1 is a .*, not a string"):
        encoder(path).encode(["good", wrong])  # type: ignore[list-item]


def test_one_string_is_not_taken_for_a_list(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="put it in a list"):
        encoder(path).encode("good")


def test_a_lone_surrogate_is_refused(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="text 0 has a lone surrogate at character 5"):
        encoder(path).encode(["good \ud800"])


def test_many_threads_get_the_same_answers(path: Path) -> None:
    shared = encoder(path)
    texts = [f"good film {'bad ' * (number % 3)}" for number in range(50)]
    expected = shared.encode(texts).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert all(
            found == expected for found in pool.map(lambda _: shared.encode(texts).tolist(), range(64))
        )


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "Nonsense"}}'])
def test_a_file_that_is_no_tokenizer_is_a_bundle_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a file of the tokenizers library"):
        encoder(tmp_path / "tokenizer.json")


def test_a_panic_of_the_library_is_a_bundle_error(path: Path) -> None:
    """It is no ``Exception``: a server that catches those would end."""
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "ABwCAAACAAAA"}
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="is not a file of the tokenizers library"):
        encoder(path)


def test_a_tokenizer_that_contradicts_itself_is_a_bundle_error(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["model"]["vocab"]["[UNK]"]
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="cannot take a text"):
        encoder(path).encode(["never seen"])


def test_a_missing_file_is_a_bundle_error_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read the tokenizer tokenizer\.json") as caught:
        encoder(tmp_path / "tokenizer.json")
    assert str(tmp_path) not in str(caught.value)


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, coterie.runtime.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

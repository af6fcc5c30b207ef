"""A Hugging Face folder as a trunk; the folders are made here, of random weights."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from coterie.runtime.errors import ConfigError, DataError, MissingExtraError
from coterie.training import Dataset, Run, dataset_of, load_run_config, train
from coterie.training.blocks import HfConfig, InputShape, LinearConfig, NgramBagConfig, build_block
from coterie.training.data import TokenOptions

transformers = pytest.importorskip("transformers")

WORDS = [f"word{number}" for number in range(40)]
PADS = {"BertModel": 0, "RobertaModel": 1, "DistilBertModel": 0}
"""The id of padding in the folders of each kind."""
SIZES: dict[str, dict[str, Any]] = {
    "DistilBertModel": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
}
TEXTS = [f"a {number}" for number in range(20)]
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a model's class to a folder with such an encoder and its tokenizer."""
    home = tmp_path_factory.mktemp("encoders")

    def get(kind: str) -> Path:
        if (home / kind).is_dir():
            return home / kind
        special = ["[CLS]", "[UNK]", "[SEP]"]
        special.insert(PADS[kind], "[PAD]")
        ids = {word: number for number, word in enumerate(special + WORDS)}
        tokenizer = Tokenizer(models.WordLevel(ids, "[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(special)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(word, ids[word]) for word in ("[CLS]", "[SEP]")]
        )
        config = getattr(transformers, kind.replace("Model", "Config"))
        options = {"vocab_size": len(ids), "max_position_embeddings": 40, "pad_token_id": PADS[kind]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = getattr(transformers, kind)(config(**SIZES.get(kind, BERT), **options))
        model.save_pretrained(home / kind)
        tokenizer.save(str(home / kind / "tokenizer.json"))
        return home / kind

    return get


def shape_of(kind: str) -> InputShape:
    return InputShape(dims=(None,), tokens=True, vocabulary=44, pad_id=PADS[kind])


def texts_of(folder: Path) -> Dataset:
    """Texts of two tasks whose answer depends on the first word."""
    first = np.random.default_rng(0).integers(0, 40, 120)
    texts = [f"{WORDS[word]} " + " ".join(WORDS[: 1 + word % 7]) for word in first]
    tokens = {"tokenizer": "file", "file": folder / "tokenizer.json", "max_length": 32}
    return dataset_of(texts, np.where(first < 20, "low", "high"), np.arange(120) % 2, tokens=tokens)


def trained(folder: Path, path: Path, **block: Any) -> Run:
    stages = [
        {
            "kind": "hard",
            "name": "trunk",
            "block": {"kind": "hf", "folder": str(folder), "max_length": 30, **block},
        },
    ]
    trainer = {"epochs": 2, "lr": 1e-2, "threads": 1}
    source = {"data": {"kind": "memory"}, "model": {"stages": stages}, "trainer": trainer}
    return train(load_run_config(source), path, dataset=texts_of(folder), report=False)


@pytest.mark.parametrize("kind", PADS)
def test_states_are_the_encoders_own_whatever_the_padding(folder: Callable[[str], Path], kind: str) -> None:
    tokens = torch.tensor([[2, 7, 8, 9], [2, 30, PADS[kind], PADS[kind]]])
    longer = torch.nn.functional.pad(tokens, (0, 3), value=PADS[kind])
    model = transformers.AutoModel.from_pretrained(folder(kind)).eval()
    wanted = model(input_ids=tokens[1:, :2]).last_hidden_state[0]
    for pool, expected in (("mean", wanted.mean(dim=0)), ("cls", wanted[0])):
        block = HfConfig(folder=folder(kind), pool=pool).build(shape_of(kind)).eval()
        torch.testing.assert_close(block(tokens)[1], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(block(longer), block(tokens), atol=1e-5, rtol=1e-4)
    states = HfConfig(folder=folder(kind), pool="none").build(shape_of(kind)).eval()(longer)
    torch.testing.assert_close(states[1, :2], wanted, atol=1e-5, rtol=1e-4)
    assert not states[1, 2:].any()


def test_longer_texts_are_cut(folder: Callable[[str], Path]) -> None:
    block = HfConfig(folder=folder("BertModel"), max_length=3).build(shape_of("BertModel")).eval()
    tokens = torch.arange(5, 12).unsqueeze(0)
    torch.testing.assert_close(block(tokens), block(tokens[:, :3]))


def test_a_frozen_encoder_learns_nothing_and_a_trainable_one_does(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    before = transformers.AutoModel.from_pretrained(folder("BertModel")).state_dict()
    frozen = trained(folder("BertModel"), tmp_path / "frozen").model.each_stage()[0]
    assert list(frozen.parameters()) == []
    learned = trained(folder("BertModel"), tmp_path / "tuned", trainable=True).model.each_stage()[0]
    name = "encoder.encoder.layer.1.output.dense.weight"
    constant = frozen.get_submodule("bank").constants[name]  # type: ignore[index]
    assert torch.equal(constant, before[name.removeprefix("encoder.")])
    assert any(parameter.grad is None or parameter.requires_grad for parameter in learned.parameters())
    tuned = dict(learned.named_parameters())[f"bank.weights.{name.replace('.', '/')}"][0]
    assert not torch.allclose(tuned, constant)


def test_a_frozen_encoder_has_no_dropout_while_training(folder: Callable[[str], Path]) -> None:
    tokens = torch.arange(5, 12).unsqueeze(0)
    frozen = HfConfig(folder=folder("BertModel")).build(shape_of("BertModel")).train()
    assert torch.equal(frozen(tokens), frozen(tokens))
    tuned = HfConfig(folder=folder("BertModel"), trainable=True).build(shape_of("BertModel"))
    assert tuned.training
    assert not torch.equal(tuned(tokens), tuned(tokens))


def test_what_does_not_fit_is_told_with_what_to_do(folder: Callable[[str], Path], tmp_path: Path) -> None:
    bert, shape = folder("BertModel"), shape_of("BertModel")
    (tmp_path / "broken").mkdir()
    shutil.copy(bert / "config.json", tmp_path / "broken")
    for block, given, message in (
        (HfConfig(folder=tmp_path / "none"), shape, "is no folder"),
        (HfConfig(folder=tmp_path), shape, "has no config.json"),
        (HfConfig(folder=tmp_path / "broken"), shape, "holds no encoder that can be loaded"),
        (HfConfig(folder=bert, max_length=41), shape, "40 positions, use fewer"),
        (HfConfig(folder=bert), InputShape(dims=(None,), tokens=True, vocabulary=99), "data.tokens"),
        (HfConfig(folder=folder("RobertaModel")), shape, "pads with id 1"),
        (HfConfig(folder=bert), InputShape(dims=(4,)), "takes tokens"),
    ):
        with pytest.raises(ConfigError, match=message):
            block.build(given)


def test_a_missing_package_is_told_as_a_missing_extra(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = folder("BertModel")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"coterie\[hf\]"):
        HfConfig(folder=bert).build(shape_of("BertModel"))


def test_blocks_that_take_token_0_for_padding_refuse_another() -> None:
    with pytest.raises(ConfigError, match="pads with 1"):
        build_block(NgramBagConfig(width=3), shape_of("RobertaModel"))
    assert build_block(LinearConfig(width=3), InputShape(dims=(4,), pad_id=1))[1].dims == (3,)


def test_the_datas_tokenizer_is_the_folders_file(folder: Callable[[str], Path], tmp_path: Path) -> None:
    data = texts_of(folder("RobertaModel"))
    assert data.text is not None
    assert data.text.spec.pad_id == 1
    assert data.text.vocabulary == 44
    first = data.splits["train"].inputs.batch(np.array([0]))[0]
    assert (first[0], first[-1]) == (0, 3)  # [CLS] and [SEP]
    with pytest.raises(ValueError, match="belong together"):
        TokenOptions(tokenizer="file")
    bare = Tokenizer(models.WordLevel({"a": 0}, "a"))
    bare.save(str(tmp_path / "bare.json"))
    (tmp_path / "none.json").write_text("{}")
    for name, message in (("bare", "no padding token"), ("none", "no tokenizer that can be read")):
        with pytest.raises(DataError, match=message):
            dataset_of(TEXTS, [0, 1] * 10, tokens={"tokenizer": "file", "file": tmp_path / f"{name}.json"})


@pytest.mark.slow
def test_a_bundle_answers_alike_and_knows_no_folder(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from coterie.exporter import export_run
    from coterie.runtime import load

    run = trained(folder("RobertaModel"), tmp_path / "run", trainable=True)
    manifest = export_run(run, tmp_path / "bundle")
    assert manifest.parity.max_abs_error < 1e-4
    assert str(folder("RobertaModel").parent) not in (tmp_path / "bundle" / "manifest.json").read_text()
    assert manifest.provenance.config["model"]["stages"][0]["block"]["folder"] == "RobertaModel"
    shutil.rmtree(folder("RobertaModel"))
    answer = load(tmp_path / "bundle").predict("0", ["word3 word4", "word30"])
    assert answer.scores.shape == (2, 2)

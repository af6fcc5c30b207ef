"""An engine whose router runs on a device: bound tensors, the dispatch on the host, the CPU's answers.

There need be no GPU: to the engine every provider but the CPU's is a device, and one of them computes nothing
itself and leaves all to the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from benchmarks.serving import device
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import MODELS, samples

from coterie.exporter._precision._narrow import Narrowing
from coterie.runtime import Engine, load
from coterie.runtime.engine._divided import DividedRouter
from coterie.runtime.engine._graph import Graph
from coterie.runtime.errors import BundleError, InvalidInputError, StoppedError
from coterie.runtime.manifest import Precision, RouterParts

Get = Callable[[str], Exported]

NOBODY = "AzureExecutionProvider"
PROVIDERS = (NOBODY, "CPUExecutionProvider")

pytestmark = pytest.mark.skipif(
    NOBODY not in ort.get_available_providers(), reason="no provider that stands for a device"
)


def on_device(bundle: Exported) -> Engine:
    return load(bundle.folder, mode="router", providers=PROVIDERS, threads=1)


def mixed(bundle: Exported, seed: int, inputs: int = 5, questions: int = 17) -> tuple[object, ...]:
    generator = np.random.default_rng(seed)
    feeds = bundle.feeds(slice(inputs))
    row, task = (
        generator.integers(0, inputs, questions),
        generator.integers(0, len(bundle.model.tasks), questions),
    )
    return feeds if len(feeds) > 1 else next(iter(feeds.values())), row, task


def test_the_router_is_divided_on_a_device_only(exported: Get) -> None:
    bundle = exported("features")
    engine = on_device(bundle)
    assert isinstance(engine._runner._sessions.router(), DividedRouter)
    assert isinstance(load(bundle.folder)._runner._sessions.router(), Graph)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_device_answers_as_the_cpu(exported: Get, name: str) -> None:
    bundle = exported(name)
    device, cpu = on_device(bundle), load(bundle.folder, mode="router", threads=1)
    device.warm()
    for seed, (inputs, questions) in enumerate([(1, 1), (1, 8), (5, 17), (4, 1)]):
        asked = mixed(bundle, seed, inputs, questions)
        answer, wanted = device.predict_many(*asked), cpu.predict_many(*asked)
        np.testing.assert_allclose(answer.scores, wanted.scores, rtol=1e-6, atol=1e-6)
        if wanted.probabilities is not None:
            np.testing.assert_allclose(answer.probabilities, wanted.probabilities, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "precision"), [("bag", "fp16"), ("bag", "bf16"), ("wide", "int8")])
def test_narrow_bundles_too(tmp_path: Path, name: str, precision: Precision) -> None:
    model = MODELS[name]()
    manifest = publish(model, tmp_path / "bundle", narrowing=Narrowing(precision=precision))
    bundle = Exported(model, tmp_path / "bundle", manifest, samples(model))
    asked = mixed(bundle, 0)
    wanted = load(bundle.folder, mode="router", threads=1).predict_many(*asked)
    np.testing.assert_allclose(on_device(bundle).predict_many(*asked).scores, wanted.scores, atol=1e-6)


def test_many_threads_get_the_answers_that_one_gets(exported: Get) -> None:
    bundle = exported("features")
    engine = on_device(bundle)
    asked = [mixed(bundle, seed, 1 + seed % 5, 1 + seed % 13) for seed in range(40)]
    wanted = [engine.predict_many(*each).scores for each in asked]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            answers = list(threads.map(lambda each: engine.predict_many(*each).scores, asked))
            for answer, right in zip(answers, wanted, strict=True):
                np.testing.assert_array_equal(answer, right)


def test_an_answer_stays_when_the_next_one_comes(exported: Get) -> None:
    bundle = exported("features")
    engine = on_device(bundle)
    first = engine.predict_many(*mixed(bundle, 0))
    kept = first.scores.copy()
    for seed in range(1, 20):
        engine.predict_many(*mixed(bundle, seed))
    np.testing.assert_array_equal(first.scores, kept)


def test_inputs_that_do_not_lie_in_one_piece_are_taken(exported: Get) -> None:
    bundle = exported("features")
    engine = on_device(bundle)
    inputs, row, task = mixed(bundle, 3)
    spread = np.asfortranarray(inputs)
    every_other = np.repeat(row, 2)[::2]
    wanted = engine.predict_many(inputs, row, task).scores
    np.testing.assert_array_equal(engine.predict_many(spread, every_other, task).scores, wanted)


def test_a_token_past_the_vocabulary_is_the_caller_s_mistake(exported: Get) -> None:
    bundle = exported("textcnn")
    engine = on_device(bundle)
    tokens = bundle.samples[:2].copy()
    tokens[0, 0] = 10_000
    with pytest.raises(InvalidInputError, match="token id past the vocabulary"):
        engine.predict_many(tokens, None, [0, 0])


def test_a_run_can_be_stopped(exported: Get) -> None:
    bundle = exported("features")
    engine = on_device(bundle)
    stop = ort.RunOptions()
    stop.terminate = True
    with pytest.raises(StoppedError):
        engine.run(engine.prepare_many(*mixed(bundle, 0)), stop)


def test_a_bundle_without_the_parts_runs_as_it_is(exported: Get) -> None:
    """Bundles before version 4 have none."""
    bundle = on_device(exported("features")).bundle
    older = replace(bundle, manifest=bundle.manifest.model_copy(update={"router_parts": None}))
    engine = Engine(older, mode="router", providers=PROVIDERS, threads=1)
    assert isinstance(engine._runner._sessions.router(), Graph)
    asked = mixed(exported("features"), 0)
    wanted = load(bundle.path, mode="router", threads=1).predict_many(*asked)
    np.testing.assert_allclose(engine.predict_many(*asked).scores, wanted.scores, atol=1e-6)


def test_parts_that_are_no_parts_are_refused(exported: Get) -> None:
    bundle = on_device(exported("features")).bundle
    parts = RouterParts(host="router.onnx", device="router.device.onnx")
    swapped = replace(bundle, manifest=bundle.manifest.model_copy(update={"router_parts": parts}))
    with pytest.raises(BundleError, match=r"'router\.onnx' takes .* gives a dispatch"):
        Engine(swapped, mode="router", providers=PROVIDERS, threads=1)


def test_the_check_for_whoever_has_a_gpu(
    exported: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COTERIE_RESULTS", str(tmp_path))
    folder = str(exported("features").folder)
    assert device.main([folder, "--provider", NOBODY, "--rounds", "1"]) == 0
    assert "divided: largest difference from the CPU" in capsys.readouterr().out
    found = json.loads((tmp_path / "serving_device.json").read_text())
    assert set(found["milliseconds"]["20 about 1"]) == {"the CPU", "divided", "whole"}
    assert "NonZero" in found["placed"]["whole"]["CPUExecutionProvider"]
    assert "NonZero" not in found["placed"]["divided"]["CPUExecutionProvider"]
    worse = {**found, "differences": {"divided": 0.1}, "provider": "CUDAExecutionProvider"}
    different, left = device.problems(worse)
    assert "differ from the CPU's by 0.1" in different
    assert "Gemm" in left
    assert device.main([folder, "--provider", "NoSuchProvider"]) == 1
    assert "not in this ONNX Runtime" in capsys.readouterr().out.replace("\n", " ")

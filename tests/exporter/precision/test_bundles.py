"""Bundles in each precision: what is stored, and that all graphs answer alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.exporter import models
from tests.exporter.conftest import Exported, publish

from coterie.exporter._precision import _heads, _int8_blocks
from coterie.exporter._precision._narrow import Narrowing
from coterie.runtime import compare_bundles, load, load_bundle
from coterie.runtime.manifest import WEIGHTS, Precision

MADE = [
    *((name, "int8") for name in ("features", "bag", "lstm", "wide", "sequences")),
    *((name, "fp16") for name in ("bag", "wide")),
    *((name, "bf16") for name in ("bag", "lstm")),
]
CLOSE = {"int8": 0.1, "fp16": 0.005, "bf16": 0.02}
"""How far scores may be from torch's, relative to their norm; weights here are random, few and small."""

STORED = {"int8": "I8", "fp16": "F16", "bf16": "BF16"}


@pytest.fixture(scope="module")
def small() -> object:
    """Let the tests' small tensors be worth int8."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_heads, _int8_blocks):
            patch.setattr(module, "SMALLEST_MATRIX", 1)
            patch.setattr(module, "SMALLEST_TABLE", 1)
        yield


@pytest.fixture(scope="module", params=MADE, ids="-".join)
def narrow(
    request: pytest.FixtureRequest, small: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Precision, Exported]:
    """Return a precision, and one model's bundle in it."""
    name, precision = request.param
    model = models.MODELS[name]()
    folder = tmp_path_factory.mktemp(f"{name}-{precision}") / "bundle"
    manifest = publish(model, folder, name=name, narrowing=Narrowing(precision=precision))
    return precision, Exported(model, folder, manifest, models.samples(model))


def header(folder: Path) -> dict[str, dict[str, object]]:
    with (folder / WEIGHTS).open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def asked(bundle: Exported) -> tuple[np.ndarray, np.ndarray]:
    count = len(bundle.samples)
    return np.arange(count), np.arange(count) % len(bundle.model.tasks)


def scores(bundle: Exported, row: np.ndarray, task: np.ndarray) -> np.ndarray:
    feeds = {bundle.model.inputs[0].name: bundle.samples, "row": row, "task": task}
    return bundle.session("router.onnx").run(["scores"], feeds)[0]


def test_scores_are_close_to_torch(narrow: tuple[Precision, Exported]) -> None:
    precision, bundle = narrow
    row, task = asked(bundle)
    wanted = bundle.wanted(row, task)
    got = scores(bundle, row, task)
    assert np.linalg.norm(got - wanted) < CLOSE[precision] * np.linalg.norm(wanted)
    assert not np.array_equal(got, wanted)


def test_the_manifest_says_what_is_stored(narrow: tuple[Precision, Exported]) -> None:
    precision, bundle = narrow
    report = bundle.manifest.precision
    assert report is not None
    assert report.asked == precision
    assert set(report.blocks) == set(bundle.manifest.tensors)
    types = {key: entry["dtype"] for key, entry in header(bundle.folder).items() if key != "__metadata__"}
    for block, own in report.blocks.items():
        stored = {types[use.tensor] for use in bundle.manifest.tensors[block]}
        if own == "fp32":
            assert STORED[precision] not in stored
        else:
            assert own == precision
            assert STORED[precision] in stored
    # Nothing is left of the tensors in the other precision.
    assert set(types) == {use.tensor for uses in bundle.manifest.tensors.values() for use in uses}


def test_recurrences_keep_fp32_in_int8(narrow: tuple[Precision, Exported]) -> None:
    precision, bundle = narrow
    kinds = {name.split("/")[0]: own for name, own in bundle.manifest.precision.blocks.items()}
    if "lstm" in kinds:
        assert kinds["lstm"] == ("fp32" if precision == "int8" else precision)


def test_all_graphs_refer_to_the_same_bytes(narrow: tuple[Precision, Exported]) -> None:
    _, bundle = narrow
    places: dict[str, set[tuple[int, int]]] = {}
    files = [entry.graph for entry in bundle.manifest.tasks]
    for file in [*files, "router.onnx"]:
        tensors = [value.const_value for value in ir.load(bundle.folder / file).graph.initializers.values()]
        places[file] = {(each.offset, each.length) for each in tensors if isinstance(each, ir.ExternalTensor)}
    whole = sorted(places["router.onnx"])
    for file in files:
        for start, length in places[file]:
            assert any(one <= start and start + length <= one + size for one, size in whole), file


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(narrow: tuple[Precision, Exported]) -> None:
    precision, bundle = narrow
    row, task = asked(bundle)
    together = scores(bundle, row, task)
    tight = 1e-2 if precision == "fp16" else 1e-4
    for question in range(len(row)):
        alone = scores(bundle, row[question : question + 1], task[question : question + 1])[0]
        np.testing.assert_allclose(alone, together[question], rtol=tight, atol=tight)


def test_the_engine_answers_alike_in_both_modes(narrow: tuple[Precision, Exported]) -> None:
    precision, bundle = narrow
    if bundle.model.tasks[0].kind == "tagging":
        pytest.skip("asked as words")
    name = bundle.model.tasks[0].name
    tight = 1e-2 if precision == "fp16" else 1e-4
    answers = [
        load(bundle.folder, mode=mode).predict(name, bundle.samples).scores for mode in ("router", "task")
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=tight, atol=tight)


@pytest.mark.parametrize(("precision", "off"), [("bf16", 0.02), ("fp16", 0.002)])
def test_bundles_are_compared_by_the_values_of_their_weights(
    tmp_path: Path, precision: Precision, off: float
) -> None:
    narrowing = Narrowing(precision=precision)
    model = models.MODELS["bag"]()
    publish(model, tmp_path / "before", narrowing=narrowing)
    for bank in model.banks:
        for tensors in bank.tensors:
            for tensor in tensors.values():
                tensor.mul_(1.5)
    publish(model, tmp_path / "after", narrowing=narrowing)
    changes = compare_bundles(load_bundle(tmp_path / "before"), load_bundle(tmp_path / "after"))
    distances = [stage.weights for change in changes for stage in change.stages]
    assert distances
    assert max(distances) == pytest.approx(0.5, abs=off)

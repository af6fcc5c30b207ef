"""An export over an earlier one: what is the same keeps its bytes and its time, and is not checked again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.exporter.conftest import Exported, publish
from torch import Tensor

from coterie.runtime import Engine, load_bundle
from coterie.runtime.errors import ParityError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, Provenance
from coterie.training.frozen import FrozenBank, FrozenModel

Get = Callable[[str], Exported]

LONG_AGO = 1_000_000_000


@pytest.fixture
def old(exported: Get, tmp_path: Path) -> Exported:
    """A published bundle that may be replaced; all its files are old."""
    bundle = exported("features")
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    for path in (tmp_path / "bundle").iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))
    return replace(bundle, folder=tmp_path / "bundle")


def again(old: Exported, model: FrozenModel | None = None, **options: object) -> tuple[Manifest, str]:
    """Export over the old bundle; return the manifest and what was said."""
    lines: list[str] = []
    manifest = publish(
        model or old.model, old.folder, overwrite=True, on_progress=lines.append, name="features", **options
    )
    return manifest, "\n".join(lines)


def with_head(model: FrozenModel, task: int) -> FrozenModel:
    """Return the model with another head for one task."""
    heads = list(model.banks[-1].tensors)
    heads[task] = {name: tensor + 0.5 for name, tensor in heads[task].items()}
    last = FrozenBank(template=model.banks[-1].template, tensors=tuple(heads))
    return replace(model, banks=(*model.banks[:-1], last))


def without_last_expert(model: FrozenModel) -> FrozenModel:
    """Return the model with task d, the third, using expert 2 alone: expert 5 stays, task e uses it."""
    stages = list(model.plan.stages)
    uses, weights = list(stages[2].uses), list(stages[2].weights)
    uses[3], weights[3] = uses[3][:1], weights[3][:1]
    stages[2] = stages[2].model_copy(update={"uses": tuple(uses), "weights": tuple(weights)})
    return replace(model, plan=model.plan.model_copy(update={"stages": tuple(stages)}))


def changed(old: Exported, before: dict[str, bytes]) -> set[str]:
    """Return the files whose bytes are others; exactly those have a new time."""
    now = {path.name: path for path in old.folder.iterdir()}
    assert now.keys() == before.keys()
    rewritten = {name for name, path in now.items() if path.stat().st_mtime != LONG_AGO}
    assert rewritten == {name for name, path in now.items() if path.read_bytes() != before[name]}
    return rewritten


def contents(old: Exported) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in old.folder.iterdir()}


def check_answers(folder: Path, old: Exported, model: FrozenModel) -> None:
    row, task = np.arange(14) % 5, np.arange(14) % len(model.tasks)
    scores = Engine(load_bundle(folder)).predict_many(old.samples[:5], row, task).scores
    assert np.allclose(scores, replace(old, model=model).wanted(row, task), atol=1e-5)


def test_the_same_model_changes_no_byte_and_no_task_is_asked_again(old: Exported) -> None:
    before = contents(old)
    _, said = again(old)
    assert changed(old, before) == set()
    assert "asking 0 of 7 task graphs" in said
    assert "7 answer as in the bundle that this replaces" in said
    assert "task graphs: 7 as they were, 0 rewritten" in said


def test_another_head_changes_the_weights_alone_and_its_task_is_asked(old: Exported) -> None:
    before, model = contents(old), with_head(old.model, 2)
    manifest, said = again(old, model)
    assert changed(old, before) == {WEIGHTS, MANIFEST, "report.html"}
    assert "asking 1 of 7 task graphs" in said
    assert "1 new" in said
    assert manifest.parity.graphs == manifest.parity.of == 8
    check_answers(old.folder, old, model)


def test_another_mixture_changes_its_tasks_graph_and_the_router(old: Exported) -> None:
    before, model = contents(old), without_last_expert(old.model)
    _, said = again(old, model)
    # Mixtures and who uses what are the dispatch's: the router's other part stays.
    graphs = {old.graph("d"), "router.onnx", "router.host.onnx"}
    assert changed(old, before) == {*graphs, MANIFEST, "report.html"}
    assert "asking 1 of 7 task graphs" in said
    assert "task graphs: 6 as they were, 1 rewritten; blocks: 19 as they were, 0 new (0.0 KiB)" in said
    check_answers(old.folder, old, model)


def test_a_changed_task_that_answers_wrongly_fails_the_export(old: Exported) -> None:
    before, model = contents(old), with_head(old.model, 2)

    def reference(inputs: Tensor, row: Tensor, task: Tensor) -> Tensor:
        return model(inputs, row, task) + 1e-2 * (task[:, None] == 2)

    with pytest.raises(ParityError, match=r"c\.onnx"):
        again(old, model, reference=reference)
    assert contents(old) == before


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 1e-5},
        {"provenance": Provenance(coterie="0", seed=1, config={"width": 12}, versions={"torch": "3"})},
    ],
)
def test_what_was_checked_otherwise_is_checked_again(old: Exported, options: dict[str, object]) -> None:
    _, said = again(old, **options)
    assert "asking 7 of 7 task graphs" in said
    assert "task graphs: 7 as they were, 0 rewritten" in said


def test_a_damaged_bundle_is_replaced_as_if_there_were_none(old: Exported, exported: Get) -> None:
    damaged = old.folder / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    _, said = again(old)
    assert "asking 7 of 7 task graphs" in said
    assert contents(old) == contents(exported("features"))

"""Which graphs are asked: all of few, a sample of many; the others are loaded all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import shared
from torch import Tensor

from coterie.exporter._check import check, sample
from coterie.exporter._verify import Checked
from coterie.runtime.errors import ExportError

Get = Callable[[str], Exported]


@pytest.mark.parametrize(
    ("tasks", "share", "count"),
    [(0, None, 0), (100, None, 100), (101, None, 100), (3000, None, 150), (1000, 0.05, 50), (7, 0.05, 1)],
)
def test_all_of_few_and_a_share_of_many_are_asked(tasks: int, share: float | None, count: int) -> None:
    drawn = sample(range(tasks), share)
    assert len(drawn) == count
    assert drawn <= set(range(tasks))
    assert drawn == sample(range(tasks), share)


def test_the_manifest_says_which_graphs_were_asked(tmp_path: Path) -> None:
    parity = publish(shared(), tmp_path / "bundle", share=0.3).parity
    assert (parity.graphs, parity.of, len(parity.tasks)) == (3, 7, 2)
    assert parity.max_abs_error >= max(parity.tasks.values())


def test_torch_is_asked_in_one_thread_and_gets_its_threads_back(tmp_path: Path) -> None:
    model, seen, before = shared(), set(), torch.get_num_threads()

    def reference(inputs: Tensor, row: Tensor, task: Tensor) -> Tensor:
        seen.add(torch.get_num_threads())
        return model(inputs, row, task)

    torch.set_num_threads(3)
    try:
        publish(model, tmp_path / "bundle", reference=reference)
        assert (seen, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ExportError, match="share"):
        publish(shared(), tmp_path / "bundle", share=share)


def test_a_graph_that_is_not_asked_must_load_unless_it_is_known(exported: Get, tmp_path: Path) -> None:
    bundle = exported("shared")
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    tasks = [entry.task for entry in bundle.manifest.tasks]
    graphs = [entry.graph for entry in bundle.manifest.tasks]
    left_out = min(set(range(6)) - sample(range(6), 0.3))
    (folder / graphs[left_out]).write_bytes(b"not a graph")
    checked = Checked(folder, bundle.model.inputs, tasks, graphs, "router.onnx")

    def parity(known: dict[str, float | None]) -> int:
        return check(
            checked,
            bundle.model,
            bundle.samples,
            tolerance=1e-4,
            share=0.3,
            known=known,
            on_progress=lambda _: None,
        ).graphs

    with pytest.raises(ExportError, match=f"cannot load {graphs[left_out]}"):
        parity({})
    assert parity({task.name: 1e-7 for task in tasks}) == 7
    assert parity({task.name: None for task in tasks}) == 3

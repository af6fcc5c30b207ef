"""File names of task graphs."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.exporter import models
from tests.exporter.conftest import publish

from coterie.exporter._files import graph_files

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.onnx")


def test_plain_names_stay_as_they_are() -> None:
    assert graph_files(["books", "dvd-2", "v1.0"]) == ["books.onnx", "dvd-2.onnx", "v1.0.onnx"]


def test_other_names_become_safe_and_stay_distinct() -> None:
    names = [
        "a/b",
        "a b",
        "../../etc/passwd",
        "router ",
        "ROUTER",
        "Books",
        "books",
        "con",
        "日本",
        "router.host",
        "Router.Device",
        "韓国",
        ".hidden",
        "x" * 200,
    ]
    files = graph_files(names)
    assert all(SAFE.fullmatch(file) and len(file) < 90 for file in files)
    assert len({file.casefold() for file in files}) == len(names)
    assert not {"router.onnx", "router.host.onnx", "router.device.onnx"} & {file.casefold() for file in files}


@given(st.lists(st.text(min_size=1, max_size=30), unique=True, min_size=1, max_size=8))
def test_any_names_give_safe_distinct_files(names: list[str]) -> None:
    files = graph_files(names)
    assert all(SAFE.fullmatch(file) for file in files)
    assert len({file.casefold() for file in files}) == len(names)


def test_a_name_s_file_does_not_depend_on_the_order_of_tasks() -> None:
    names = ["a/b", "Books", "books", "a-b"]
    assert graph_files(names) == list(reversed(graph_files(list(reversed(names)))))


def test_a_model_with_odd_task_names_is_exported(tmp_path: Path) -> None:
    tasks = tuple(models.task(name) for name in ("../up", "Router", "ø & <b>", 'quote"s'))
    shape = models.InputShape(dims=(8,))
    maker = models.Maker(tasks, models.TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
    model = maker.bank(
        "trunk", "hard", models.LinearConfig(width=8).build(shape), models.all_of(tasks)
    ).heads(8)
    manifest = publish(model, tmp_path / "bundle")
    assert [entry.task.name for entry in manifest.tasks] == [task.name for task in tasks]
    assert all((tmp_path / "bundle" / entry.graph).is_file() for entry in manifest.tasks)
    assert "ø &amp; &lt;b&gt;" in (tmp_path / "bundle" / "report.html").read_text(encoding="utf-8")

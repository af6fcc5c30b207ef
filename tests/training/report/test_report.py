"""The page of a run: what it says, what it escapes, and that it needs no other file."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from tests.training.runs import config_of

from coterie.runtime.errors import CheckpointError
from coterie.runtime.plan import BlockPlan, SharingPlan, StagePlan
from coterie.training import Run, train
from coterie.training.report import task_correlation, write_report
from coterie.training.report._groups import _ranked
from coterie.training.report._matrices import alike

NASTY = "<script>alert('$x$')</script>"
STAGES = {"experts": "gated", "general": "cluster", "special": "cluster"}


class Page(HTMLParser):
    """Collects a page's elements and text; counts what is open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.rows: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if "tr" in self.open:
            self.rows[-1] += f"|{data}"


def stage(name: str, kind: Any, uses: list[list[int]], **more: Any) -> StagePlan:
    blocks = 1 + max(max(used) for used in uses)
    return StagePlan(
        name=name,
        kind=kind,
        trained_blocks=blocks,
        blocks=tuple(BlockPlan(name=f"{name}/{n}", source=n, parameters=3) for n in range(blocks)),
        uses=tuple(map(tuple, uses)),
        weights=tuple((1.0,) * len(used) for used in uses),
        **more,
    )


def folder_of(path: Path, count: int, scores: dict[str, list[float]], *, epochs: int = 3) -> Path:
    """The files of a finished run of so many tasks, the first of them with a nasty name."""
    path.mkdir()
    names = [NASTY, *(f"task {number}" for number in range(1, count))]
    special = np.arange(count) % 4
    gates = np.random.default_rng(0).random((count, 5))
    gates[:, 0] = 0.9
    plan = SharingPlan(
        tasks=tuple(names),
        stages=(
            stage(
                "experts",
                "gated",
                [np.flatnonzero(row > 0.5).tolist() for row in gates],
                gate_probabilities=tuple(map(tuple, gates.tolist())),
            ),
            stage("general", "cluster", [[label] for label in (special // 2).tolist()]),
            stage("special", "cluster", [[label] for label in special.tolist()]),
            stage("head", "head", [[number] for number in range(count)]),
        ),
    )
    dev = {name: {"accuracy": 0.5} for name in names}
    records = [
        {
            "epoch": epoch,
            "train": {"loss": 1 / epoch},
            "dev": {"loss": 1.1 / epoch, "metric": 0.5, "tasks": dev},
            "best": epoch == 2,
            "stages": {"experts": {"density": 3 - epoch / 10}},
            "assignments": {"general": (special // 2).tolist(), "special": special.tolist()},
        }
        for epoch in range(1, epochs + 1)
    ]
    metrics = {
        split: {name: {"accuracy": value} for name, value in zip(names, values, strict=True)}
        for split, values in scores.items()
    }
    task = {"kind": "classification", "labels": ["no", "yes"]}
    data = {"tasks": [{"name": name, **task} for name in names], "sha256": "ab" * 32}
    (path / "plan.json").write_text(plan.model_dump_json())
    (path / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "data.json").write_text(json.dumps(data))
    (path / "config.yaml").write_text("name: reviews\nseed: 7\nmodel: {note: '</pre><b>'}\n")
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four tasks beside a baseline: the last is worse on both splits, the third on one of them."""
    home = tmp_path_factory.mktemp("runs")
    ours = folder_of(home / "ours", 4, {"dev": [0.9, 0.8, 0.7, 0.6], "test": [0.9, 0.8, 0.7, 0.6]})
    single = folder_of(home / "single", 4, {"dev": [0.8, 0.8, 0.75, 0.7], "test": [0.8, 0.8, 0.65, 0.7]})
    write_report(ours, baseline=single)
    return ours


def test_the_page_is_one_well_formed_file_that_needs_no_other(compared: Path) -> None:
    page = Page((compared / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "bobject"} == set()
    sources = [attributes["src"] or "" for tag, attributes in page.elements if tag == "img"]
    assert len(sources) == len(list((compared / "plots").glob("*.png"))) == 8
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(attributes["alt"] for tag, attributes in page.elements if tag == "img")
    assert "url(" not in (compared / "report.html").read_text(encoding="utf-8")


def test_names_and_configuration_are_shown_as_they_are(compared: Path) -> None:
    page = Page((compared / "report.html").read_text(encoding="utf-8"))
    assert NASTY in page.words
    for said in ("</pre><b>", "epoch 2 is kept", "ab" * 32, "Seed", "torch", "Density against accuracy"):
        assert said in page.words


def test_a_task_below_the_baseline_on_every_split_is_marked(compared: Path) -> None:
    page = Page((compared / "report.html").read_text(encoding="utf-8"))
    assert "single" in page.words
    assert "Negative transfer: 1 of 4 tasks" in page.words
    marked = [row for row in page.rows if "negative transfer" in row]
    assert len(marked) == 1
    assert "task 3" in marked[0]
    assert marked[0].count("-0.1000") == 2
    # The largest loss comes first.
    assert [row.split("|")[1] for row in page.rows if "accuracy" in row] == [
        "task 3",
        "task 1",
        "task 2",
        NASTY,
    ]


def test_a_baseline_that_is_no_finished_run_is_an_error_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a finished run"):
        train(config_of(), tmp_path / "run", baseline=tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [2, 300])
def test_pages_and_pictures_of_any_number_of_tasks_have_a_bearable_size(tmp_path: Path, count: int) -> None:
    values = np.linspace(0.4, 0.9, count).tolist()
    ours = folder_of(tmp_path / "ours", count, {"dev": values, "test": values})
    single = folder_of(tmp_path / "single", count, {"dev": [0.5] * count, "test": [0.5] * count})
    page = write_report(ours, baseline=single)
    assert page.stat().st_size < 3_000_000
    text = page.read_text(encoding="utf-8")
    assert (f"{count - 200} more tasks" in text) is (count > 200)
    for path in (ours / "plots").glob("*.png"):
        assert max(imread(path).shape) < 2700, path.name


def test_a_training_writes_the_page(whole: Run, tmp_path: Path) -> None:
    text = (whole.folder / "report.html").read_text(encoding="utf-8")
    assert {path.stem for path in (whole.folder / "plots").iterdir()} == {
        "training",
        "density",
        "clusters",
        "assignments-layer",
        "gates-experts",
        "correlation-experts",
    }
    assert whole.data.sha256 in text
    assert ">difference<" not in text  # there is nothing to compare with
    assert re.search(r"Mean over tasks on test -?\d", text)
    # It is drawn from the files alone.
    copy = shutil.copytree(
        whole.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("plots", "report.html")
    )
    assert write_report(copy).read_text(encoding="utf-8") == text


def test_the_correlation_of_tasks_is_numpys() -> None:
    rows = np.random.default_rng(0).random((4, 9))
    np.testing.assert_allclose(task_correlation(rows), np.corrcoef(rows), atol=1e-12)
    assert np.isfinite(task_correlation(np.full((3, 4), 0.5))).all()


def test_tasks_that_are_alike_stand_side_by_side() -> None:
    rows = np.array([[0.0, 1], [1, 0], [0, 0.9], [0.9, 0]])
    order = alike(rows).tolist()
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}


def test_clusters_are_numbered_so_that_a_tree_does_not_cross() -> None:
    general = np.array([1, 1, 1, 0, 0, 0])
    special = np.array([0, 2, 2, 1, 3, 3])
    first, second = _ranked([general, special])
    for part in (0, 1):
        assert set(second[first == part]) == {2 * part, 2 * part + 1}

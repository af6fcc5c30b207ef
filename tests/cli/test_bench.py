"""``coterie bench``: what it says is what is there; a real server and real sessions, for a moment."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coterie.cli._bench import _measure, _tables
from coterie.cli._bench._engine import ENGINE, GROUPED, ONE_BY_ONE, Case
from coterie.cli._bench._timing import Times
from coterie.runtime import parse_manifest

from .conftest import Command


@pytest.fixture(scope="module")
def written(
    coterie: Command, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], str, str]:
    """The JSON, the page and the terminal's text of a short measurement."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_measure, "_QUICK_SECONDS", 0.05)
        done = coterie(
            *("bench", bundle, "--quick", "--tasks", "4"),
            *("--json", folder / "figures.json", "--html", folder / "page.html"),
        )
    assert done.exit_code == 0, done.output
    return (
        json.loads((folder / "figures.json").read_text()),
        (folder / "page.html").read_text(),
        done.stdout,
    )


def test_bytes_are_those_of_the_files(written: tuple[dict[str, Any], str, str], bundle: Path) -> None:
    found = written[0]["bytes"]
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert found["bundle"] == sum(
        path.stat().st_size for path in bundle.iterdir() if path.name != "report.html"
    )
    assert found["weights"] == manifest.sizes["weights"]
    assert found["single_task"] == sum(kind.copies for kind in manifest.kinds.values())


def test_times_fit_a_terminal_of_80_columns() -> None:
    ways = {way: Times(12345.678, 12345.678, 5) for way in (ENGINE, ONE_BY_ONE, GROUPED)}
    case = Case("64 questions over 100 tasks", "tasks", 64, 64, 100, ways)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(_tables.times_table([case]))
    printed = shown.get()
    row = next(line for line in printed.splitlines() if "64 questions over 100 tasks" in line)
    assert row.count("12,346 ms") == 2
    assert "5" in row.split()
    assert "…" not in printed


def test_every_kind_of_question_is_timed_both_ways(written: tuple[dict[str, Any], str, str]) -> None:
    cases = written[0]["engine"]
    assert {case["group"] for case in cases} == {"batch", "tasks", "fan-out"}
    assert [case["questions"] for case in cases if case["group"] == "batch"] == [1, 16, 256]
    for case in cases:
        assert case["tasks"] <= 4
        own, other = (case["times"][way]["median_ms"] for way in ("coterie", "a session a task"))
        assert case["times_faster_than"]["a session a task"] == pytest.approx(other / own, abs=1e-3)
        assert ("a session a task, grouped" in case["times"]) == (case["questions"] > case["tasks"])


def test_the_server_answers_in_every_way(written: tuple[dict[str, Any], str, str]) -> None:
    server = written[0]["server"]
    assert server["start_s"] > 0
    assert [(way["transport"], way["clients"]) for way in server["ways"]] == [
        ("HTTP", 1),
        ("HTTP", 32),
        ("gRPC", 1),
        ("gRPC", 32),
    ]
    for way in server["ways"]:
        assert way["failures"] == 0
        assert way["per_second"] > 10


def test_memory_counts_all_tasks(written: tuple[dict[str, Any], str, str]) -> None:
    memory = written[0]["memory"]
    assert memory["coterie"]["tasks"] == 6
    assert memory["a session a task"]["tasks"] == 4
    if memory["a session a task"]["bytes"] is not None:
        assert memory["a session a task"]["for_all"] == pytest.approx(
            memory["a session a task"]["bytes"] * 6 / 4, abs=1
        )


def test_the_page_needs_no_other_file(written: tuple[dict[str, Any], str, str]) -> None:
    found, page, told = written
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
    assert len(pictures) == 3
    assert all(b"</svg>" in base64.b64decode(picture) for picture in pictures)
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for case in found["engine"]:
        assert case["name"] in page
        assert case["name"] in told


def test_given_inputs_that_are_wrong_are_told_before_anything_is_measured(
    coterie: Command, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text("[[1, 2]]")
    done = coterie("bench", bundle, "--input", tmp_path / "x.json", "--no-server")
    assert done.exit_code == 2
    assert "shape" in done.stderr

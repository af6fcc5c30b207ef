"""The Grafana dashboard asks for what a server really tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .watched import Watched, eventually

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "examples" / "grafana" / "coterie.json"
DOCUMENT = ROOT / "docs" / "operations.md"
OF_PROMETHEUS = {"instance", "le"}
_ASKED = re.compile(r"(coterie_[a-z_]+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"by \(([a-z_, ]+)\)")


@pytest.fixture(scope="module")
def queries() -> list[str]:
    if not DASHBOARD.is_file():
        pytest.skip("the examples are not here, only the wheel")
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]


@pytest.fixture(scope="module")
def known(watched: Watched) -> dict[str, set[str]]:
    """The labels of everything that a server tells, by name."""
    watched.predict()

    def told() -> dict[str, set[str]]:
        text = httpx.get(f"{watched.http}/metrics").text
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(text):
            # A family that has no series yet, such as a shadow's, is there by its name.
            known = f"{family.name}_total" if family.type == "counter" else family.name
            found.setdefault(known, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found if found.get("coterie_block_runs_total") else {}

    return eventually(told)


def test_every_query_asks_for_metrics_and_labels_that_there_are(
    known: dict[str, set[str]], queries: list[str]
) -> None:
    empty = {name for name, labels in known.items() if not labels}
    assert len(queries) > 20
    for query in queries:
        asked = _ASKED.findall(query)
        assert asked, query
        labels = {label.strip() for group in _GROUPED.findall(query) for label in group.split(",")}
        for name, selector in asked:
            assert name in known, query
            wanted = set(re.findall(r"([a-z_]+)(?:=~|!=|=)", selector))
            if name not in empty:
                assert wanted - OF_PROMETHEUS <= known[name], query
        own = set().union(*(known[name] for name, _ in asked))
        if own:
            assert labels - OF_PROMETHEUS <= own, query


def test_the_documentation_names_all_metrics_and_no_others(known: dict[str, set[str]]) -> None:
    if not DOCUMENT.is_file():
        pytest.skip("the documentation is not here, only the wheel")
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"coterie_[a-z_]+", text))
    assert named - set(known) == set()
    parts = ("_bucket", "_sum", "_count", "_created")
    assert {name for name in known if not name.endswith(parts)} - named == set()

"""The Grafana dashboard asks for what a server really tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .watched import Watched, eventually

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana" / "coterie.json"
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


def test_every_query_asks_for_metrics_and_labels_that_there_are(watched: Watched, queries: list[str]) -> None:
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

    known = eventually(told)
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

"""The report can be read on its own, and says what is in the bundle."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.exporter import render_report

Get = Callable[[str], Exported]

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects a page's text, and checks that its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.resources: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.resources += [value or "" for key, value in attrs if key in {"src", "href", "data", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.mark.parametrize("name", list(MODELS))
def test_the_report_is_one_whole_page_without_other_resources(exported: Get, name: str) -> None:
    html = (exported(name).folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert page.resources == []
    assert "script" not in page.tags
    assert "url(" not in html


def test_the_report_shows_sizes_stages_and_parity(exported: Get) -> None:
    manifest = exported("features").manifest
    page = Page(render_report(manifest))
    for size in manifest.sizes.values():
        assert f"{size:,}" in page.words
    for stage in manifest.plan.stages:
        assert stage.name in page.words
    assert str(manifest.parity.max_abs_error) in page.words
    assert "experts (gated): tasks and blocks" in page.words


def test_the_sharing_maps_fill_a_square_for_each_block_used(exported: Get) -> None:
    manifest = exported("features").manifest
    page = Page(render_report(manifest))
    used = sum(
        int(manifest.plan.stage(name).density().sum()) for name in ("experts", "clusters2", "clusters3")
    )
    uses = [
        [set(blocks) for blocks in manifest.plan.stage(name).uses]
        for name in ("experts", "clusters2", "clusters3")
    ]
    pairs = sum(any(own[a] & own[b] for own in uses) or a == b for a in range(7) for b in range(7))
    # Each square is a <rect> with a <title>; the page's own title is one more.
    assert page.tags.count("title") - 1 == used + pairs

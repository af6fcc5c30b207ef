"""README and docs/performance.md say what the results say."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from benchmarks import pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", list(pages.PAGES))
def test_a_page_is_what_its_template_and_the_results_give(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == pages.render(pages.PAGES[page]), (
        "run python -m benchmarks.pages"
    )


@pytest.mark.parametrize("page", list(pages.PAGES))
def test_every_figure_has_a_source(page: str) -> None:
    assert pages.literal_figures(pages.PAGES[page]) == []


def test_a_figure_without_a_source_is_seen(tmp_path: Path) -> None:
    template = tmp_path / "page.md.j2"
    template.write_text("Is {{ demo.tasks|length }} x faster, takes 4.5 ms and 20 MiB, `1 ms`.\n")
    assert pages.literal_figures(template) == ["4.5 ms", "20 MiB"]


def test_a_figure_that_no_result_has_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / "page.md.j2"
    template.write_text("{{ demo.nothing }}")
    with pytest.raises(jinja2.UndefinedError, match="nothing"):
        pages.render(template)

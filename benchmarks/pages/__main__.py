"""Write the pages, or check them; see the package."""

from __future__ import annotations

import argparse
import sys

from benchmarks.pages import PAGES, literal_figures, render
from benchmarks.pages._render import ROOT


def main() -> None:
    """Write every page, or with ``--check`` say which are not as they should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    stale = []
    for page, template in PAGES.items():
        content, file = render(template), ROOT / page
        without_source = literal_figures(template)
        if without_source:
            sys.exit(f"{template.name}: figures without a source: {', '.join(without_source)}")
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            stale.append(page)
            if not chosen.check:
                file.write_text(content, encoding="utf-8")
    if chosen.check and stale:
        sys.exit(f"not what the results say: {', '.join(stale)}; run python -m benchmarks.pages")
    print(f"written: {', '.join(stale) or 'nothing, all as they should be'}")


if __name__ == "__main__":
    main()

"""The public face of the package."""

from __future__ import annotations

import coterie.exporter


def test_all_is_what_is_public() -> None:
    public = {name for name in vars(coterie.exporter) if not name.startswith("_")}
    assert public == set(coterie.exporter.__all__)

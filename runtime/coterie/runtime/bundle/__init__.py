"""A bundle as it lies on disk: read whole, and refused where it is damaged, forged or not its manifest's."""

from coterie.runtime.bundle._bundle import Bundle, load_bundle

__all__ = ["Bundle", "load_bundle"]

"""Freezes a trained model into a bundle: shared weights once, a graph for each task, and the router.

>>> from coterie.exporter import export, export_standalone
>>> manifest = export(frozen, "bundle/", reference=model, samples=inputs, about=about)   # doctest: +SKIP
>>> export_standalone("bundle/", "books", "books.onnx")                          # doctest: +SKIP
"""

from coterie.exporter._about import About, Checks
from coterie.exporter._export import export
from coterie.exporter._kserve import export_kserve
from coterie.exporter._report import render_report
from coterie.exporter._run import export_run
from coterie.exporter._standalone import export_standalone
from coterie.exporter._triton import export_triton
from coterie.exporter._verify import Reference

__all__ = [
    "About",
    "Checks",
    "Reference",
    "export",
    "export_kserve",
    "export_run",
    "export_standalone",
    "export_triton",
    "render_report",
]

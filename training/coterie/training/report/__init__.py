"""What a modeller looks at after a training: pictures in ``plots/``, and all of it on one page.

Everything is drawn from the run folder's files alone, so that it can be drawn again at any time:

    write_report(Path("runs/digits"), baseline=Path("runs/digits-single"))
"""

from coterie.training.report._facts import read_metrics
from coterie.training.report._figure import INK, MINUS, PLUS, SOFT, entitle, new_figure, tidy
from coterie.training.report._matrices import task_correlation
from coterie.training.report._page import html_environment, stage_row, write_report

__all__ = [
    "INK",
    "MINUS",
    "PLUS",
    "SOFT",
    "entitle",
    "html_environment",
    "new_figure",
    "read_metrics",
    "stage_row",
    "task_correlation",
    "tidy",
    "write_report",
]

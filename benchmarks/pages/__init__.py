"""README, docs/performance and docs/results: words are in templates here, figures in benchmarks/results.

python -m benchmarks.pages            # write them again
python -m benchmarks.pages --check    # exit 1 where one is not what its template and the results give
"""

from benchmarks.pages._render import PAGES, literal_figures, render

__all__ = ["PAGES", "literal_figures", "render"]

"""The part of a run's data that it did not learn from: what any model scores on it."""

from __future__ import annotations

from collections.abc import Mapping

from coterie.exporter._verify import Reference
from coterie.runtime.errors import CoterieError, ExportError
from coterie.training import Run
from coterie.training.data import Dataset, load_data
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.evaluate import evaluate
from coterie.training.loop.losses import QuestionLoss

Scores = Mapping[str, Mapping[str, float]]
"""Task name to metric name to value."""


class HeldOut:
    """The dev and test splits of a run.

    Args:
        run: The training.
        dataset: Its data, if already loaded; otherwise it is read from where the run read it.

    Raises:
        ExportError: If the data cannot be read, or is not what the run was trained on.
    """

    def __init__(self, run: Run, dataset: Dataset | None = None) -> None:
        if dataset is None:
            try:
                dataset = load_data(run.config.data)
            except CoterieError as error:
                reason = str(error).splitlines()[0]
                raise ExportError(
                    f"the run's data cannot be read ({reason}): put it back where the run's config.yaml says"
                ) from error
        if dataset.sha256 != run.data.sha256:
            raise ExportError(
                "the run's data is not what it was trained on: its content has another checksum; put the old "
                "data back, or train again"
            )
        self._run = run
        self._dataset = dataset

    @property
    def last(self) -> str:
        """The split that nothing was chosen on: ``test``, or ``dev`` where there is no other."""
        return "test" if "test" in self._dataset.splits else "dev"

    def scores(self, answer: Reference, split: str) -> Scores:
        """Return what a model, a frozen model or a router scores on a split, for each task."""
        tasks = self._run.data.tasks
        source = BatchSource(self._dataset.splits[split], len(tasks))
        loss = QuestionLoss(tasks, self._run.model.head.scale)
        return evaluate(answer, source, tasks, loss).tasks

    def measure(self, answer: Reference) -> dict[str, float]:
        """Return the metric that each task is compared by, on dev; no task for which it is not defined."""
        scores = self.scores(answer, "dev")
        tasks = self._run.data.tasks
        return {
            task.name: scores[task.name][task.metric] for task in tasks if task.metric in scores[task.name]
        }

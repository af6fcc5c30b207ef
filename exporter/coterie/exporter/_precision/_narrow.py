"""From a frozen model to blocks in less than fp32, as many of them as validation data allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from coterie.exporter._cut_columns import Measure
from coterie.exporter._model import BoundModel, bind_model
from coterie.exporter._precision._agree import INPUTS, score_difference
from coterie.exporter._precision._choose import Choice, Trials, choose, narrow_units, precisions
from coterie.exporter._trace import Tracer
from coterie.exporter._verify import Checked, Reference, verify
from coterie.exporter._weights import WeightStore
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import WEIGHTS, Precision, PrecisionReport
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays, take


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """What is asked for.

    Attributes:
        precision: What weights are stored in, where that is worth it.
        max_metric_drop: Points that a task may lose on validation data; None asks for no measurement. A point
            is 0.01 of the task's metric: a percent of accuracy, 0.01 of an area under the curve or of r2.
        measure: What a model scores on validation data; needed where there is a limit.
    """

    precision: Precision = "fp32"
    max_metric_drop: float | None = None
    measure: Measure | None = None

    def check(self) -> None:
        """Check that it can be done.

        Raises:
            ExportError: If a limit is no number, has nothing to be measured on, or limits nothing.
        """
        drop = self.max_metric_drop
        if drop is None:
            return
        if self.precision == "fp32":
            raise ExportError("max_metric_drop is for less than fp32: give a precision, such as int8")
        if not (math.isfinite(drop) and drop >= 0):
            raise ExportError(f"a task cannot be allowed to lose {drop} points: give 0 or more, like 0.5")
        if self.measure is None:
            raise ExportError(
                "a metric's drop is measured on validation data: give it, or leave the limit out"
            )


FP32 = Narrowing()


@dataclass(frozen=True)
class Bound:
    """A model bound to its tensors.

    Attributes:
        model: The blocks.
        store: Their tensors, and no others.
        fp32_bytes: Bytes of all weights if they were fp32.
        choice: What was chosen, and what it cost.
    """

    model: BoundModel
    store: WeightStore
    fp32_bytes: int
    choice: Choice


def bind_in(
    wanted: Narrowing,
    frozen: FrozenModel,
    samples: Arrays,
    *,
    reference: Reference,
    tolerance: float,
    on_progress: Callable[[str], None],
) -> Bound:
    """Bind a model's weights in the precision that is asked for.

    Args:
        wanted: What is asked for.
        frozen: A pruned model.
        samples: Real inputs ``[n, ...]``.
        reference: The torch model.
        tolerance: Largest difference of a score from the reference's while all is fp32.
        on_progress: Called with a line of text at each step.

    Raises:
        ParityError: If in fp32 the router does not answer as the torch model does.
        ExportError: If no weight would be narrow, or none can be within the limit.
    """
    tracer, store = Tracer(), WeightStore()
    wide = bind_model(frozen, samples, store, on_progress, tracer=tracer)
    if wanted.precision == "fp32":
        return Bound(wide, store, store.length, Choice(wide, (), {}))
    fp32_bytes = store.length
    on_progress(f"storing weights as {wanted.precision}")
    narrow = bind_model(frozen, samples, store, lambda _: None, tracer=tracer, precision=wanted.precision)
    if not narrow_units(narrow):
        raise ExportError(
            f"no weight of this model gains by {wanted.precision}: they are small, or of convolutions or "
            "recurrences; export it in fp32"
        )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trials = Trials(
            folder,
            store.write(folder / WEIGHTS),
            narrow=narrow,
            wide=wide,
            samples=take(samples, slice(INPUTS)),
        )
        verify(trials.in_fp32(), reference, samples, tolerance=tolerance, tasks=[])
        choice = Choice(narrow, (), {})
        if wanted.max_metric_drop is not None and wanted.measure is not None:
            on_progress("measuring on validation data what each task loses")
            choice = choose(
                trials,
                measure=wanted.measure,
                reference=reference,
                allowed=wanted.max_metric_drop,
                on_progress=on_progress,
            )
    keys = {use.tensor for uses in choice.model.tensor_uses().values() for use in uses}
    return Bound(choice.model, store.only(keys), fp32_bytes, choice)


def precision_report(
    bound: Bound, wanted: Narrowing, checked: Checked, reference: Reference, samples: Arrays
) -> PrecisionReport | None:
    """Return what the manifest says of it; None in fp32."""
    if wanted.precision == "fp32":
        return None
    return PrecisionReport(
        asked=wanted.precision,
        blocks=precisions(bound.model),
        costly=bound.choice.costly,
        score_difference=float(f"{score_difference(checked, reference, samples):.2g}"),
        max_metric_drop=wanted.max_metric_drop,
        drops=dict(bound.choice.drops),
    )

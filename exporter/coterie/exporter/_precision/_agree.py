"""In less than fp32 no graph answers as torch does, but all of them must answer alike.

What a bundle is checked against is then its own router, asked one question at a time: so task graphs and
router compute the same function, and an answer does not depend on what is asked beside it. That the router is
the right one is checked before, in fp32, against torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from coterie.exporter._metrics import router_of
from coterie.exporter._verify import Checked, Floats, Reference, Rounding
from coterie.runtime.errors import ParityError
from coterie.runtime.manifest import Precision
from coterie.training.several import Arrays, Tensors, apply, count, each, take

INPUTS = 16
"""Each is asked about alone, and with every task: fewer than in fp32."""

_FURTHEST = 0.25
"""Distance of the scores from torch's, relative to their norm; a trained model in int8 is a few percent."""

_SMALLEST_NORM = 1e-30

_ROUNDING: Mapping[Precision, Rounding] = {
    # A state at the border between two integers goes either way with the last bit of the sum before it.
    "int8": Rounding(share=0.05, most=0.05),
    # ONNX Runtime's CPU provider computes fp16 in fp32, and rounds where it likes: not after every node.
    "fp16": Rounding(share=1.0, most=0.02),
    # Only weights are rounded, and those are the same bytes everywhere.
    "bf16": Rounding(share=0.0, most=0.0),
}


def rounding_of(precision: Precision) -> Rounding | None:
    """Return what answers may differ by because states are rounded; None in fp32."""
    return _ROUNDING.get(precision)


def reference_of(
    precision: Precision, checked: Checked, reference: Reference, samples: Arrays
) -> tuple[Reference, Arrays]:
    """Return what a bundle's graphs must answer, and the inputs they are asked about."""
    if precision == "fp32":
        return reference, samples
    router, answers = router_of(checked), dict[tuple[bytes, int], Tensor]()
    first = torch.zeros(1, dtype=torch.int64)

    def one(inputs: Tensors, task: int) -> Tensor:
        key = (b"".join(given.numpy().tobytes() for given in each(inputs)), task)
        if key not in answers:
            answers[key] = router(inputs, first, torch.tensor([task]))
        return answers[key]

    def alone(inputs: Tensors, row: Tensor, task: Tensor) -> Tensor:
        if len(row) == 0:
            return router(inputs, row, task)
        questions = zip(row.tolist(), task.tolist(), strict=True)
        return torch.cat([one(take(inputs, slice(index, index + 1)), number) for index, number in questions])

    return alone, take(samples, slice(INPUTS))


def score_difference(checked: Checked, reference: Reference, samples: Arrays) -> float:
    """Return the largest absolute difference of the router's scores from the torch model's.

    Raises:
        ParityError: If the scores are no longer the model's: that is no rounding.
    """
    inputs, tasks = as_tensors(take(samples, slice(INPUTS))), len(checked.tasks)
    got, wanted = (about_every_task(answer, inputs, tasks) for answer in (router_of(checked), reference))
    away = float(np.linalg.norm(got - wanted)) / max(float(np.linalg.norm(wanted)), _SMALLEST_NORM)
    if not away <= _FURTHEST:
        raise ParityError(
            f"the scores are {away:.0%} away from the torch model's, more than rounding would bring about; "
            "nothing was published: export in fp32, or give max_metric_drop, so that blocks that round badly "
            "keep fp32"
        )
    return float(np.abs(got - wanted).max())


def as_tensors(samples: Arrays) -> Tensors:
    """Return inputs as a torch model takes them."""
    return apply(lambda array: torch.from_numpy(np.ascontiguousarray(array)), samples)


def about_every_task(answer: Reference, samples: Tensors, tasks: int) -> Floats:
    """Return every task's scores about every sample, ``[n * N, (L,) C]``."""
    rows = count(samples)
    row = torch.arange(rows).repeat_interleave(tasks)
    with torch.no_grad():
        found: Floats = answer(samples, row, torch.arange(tasks).repeat(rows)).cpu().numpy()
    return found

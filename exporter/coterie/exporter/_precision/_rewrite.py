"""What it takes to compute a traced block in another precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from coterie.exporter._builder import Lowering
from coterie.exporter._trace import Trace
from coterie.exporter._weights import Array
from coterie.runtime.manifest import Precision


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor that is stored in place of a weight.

    Attributes:
        value: What stands for it in lowered nodes; the weight's own value where nothing but its type changes.
        suffix: Is added to the weight's name.
        make: From the weight to what is stored.
    """

    value: ir.Value
    suffix: str
    make: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Rewrite:
    """How one traced architecture computes in another precision.

    Attributes:
        precision: Which.
        parts: For each weight that is stored otherwise what is stored in its place.
        lowered: For each node that becomes several what adds them.
        widened: Weights that are cast back to fp32 in the graph, and the part that they are cast from.
        half: Whether the states are fp16 from the block's border on.
    """

    precision: Precision
    parts: Mapping[ir.Value, Sequence[Part]]
    lowered: Mapping[ir.Node, Lowering] = field(default_factory=dict)
    widened: Mapping[ir.Value, ir.Value] = field(default_factory=dict)
    half: bool = False


def float_weights(trace: Trace) -> list[ir.Value]:
    """Return the float32 values that a block's body reads from outside and that are no states."""
    values = [*trace.parameters.values(), *trace.derived, *trace.constants]
    return [value for value in values if value in trace.reads and value.dtype == ir.DataType.FLOAT]

"""From a precision to what a traced block becomes in it."""

from __future__ import annotations

from coterie.exporter._precision._half import bf16_rewrite, fp16_rewrite
from coterie.exporter._precision._int8_blocks import int8_rewrite
from coterie.exporter._precision._rewrite import Rewrite
from coterie.exporter._trace import Trace
from coterie.runtime.manifest import Precision

_REWRITES = {"int8": int8_rewrite, "fp16": fp16_rewrite, "bf16": bf16_rewrite}


def rewrite(trace: Trace, precision: Precision) -> Rewrite | None:
    """Return how a traced block computes in a precision; None where it stays fp32."""
    return None if precision == "fp32" else _REWRITES[precision](trace)

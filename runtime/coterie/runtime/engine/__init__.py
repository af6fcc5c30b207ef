"""Runs a bundle's graphs: the router for all tasks, and sessions of single tasks where they pay.

An ``Engine`` checks what is asked and names what was answered. Its ``Runner`` chooses the graphs: the router,
or a task's own session. ``Sessions`` makes the sessions of ONNX Runtime, and ``TaskGraphs`` keeps those of
single tasks, within a number of bytes.
"""

from coterie.runtime.engine._engine import Engine, load
from coterie.runtime.engine._prediction import Prediction, Result

__all__ = ["Engine", "Prediction", "Result", "load"]

"""The router on a device: its dispatch is computed on the host, before the device has anything to do.

A GPU is given work ahead of time, and that only for as long as the host knows how large the work is. Which
blocks take how many states follows from the questions alone; so the host computes it first, in a graph of
its own, and the device's graph takes it as inputs: nothing in it makes the host wait for a number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coterie.runtime.engine._graph import Array, Floats, Graph, RunOptions


class DividedRouter:
    """The two parts of a router, asked as the router is; any number of threads may run it at once.

    Args:
        host: From ``count``, ``row`` and ``task`` to the dispatch.
        device: From the inputs and the dispatch to scores and probabilities.
        inputs: Names of the model's inputs.
    """

    def __init__(self, host: Graph, device: Graph, inputs: tuple[str, ...]) -> None:
        self._host = host
        self._device = device
        self._first = inputs[0]

    def run(self, feeds: Mapping[str, Array], stop: RunOptions | None = None) -> tuple[Floats, Floats | None]:
        """Return scores and probabilities; see ``Graph.run``.

        Args:
            feeds: The inputs, ``row`` and ``task``.
            stop: Its ``terminate``, set by another thread, ends the run before its next kernel.
        """
        count = np.array([len(feeds[self._first])], dtype=np.int64)
        dispatch = self._host.outputs({"count": count, "row": feeds["row"], "task": feeds["task"]}, stop)
        # The caller's own come last: no graph of a bundle replaces them.
        given = {**dispatch, **feeds}
        return self._device.run({name: given[name] for name in self._device.takes}, stop)

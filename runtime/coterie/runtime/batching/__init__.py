"""Asks an engine from an event loop: one queue across all tasks, batches of whatever waits.

import coterie.runtime
from coterie.runtime.batching import Batcher

batcher = Batcher(coterie.runtime.load("bundle/"))
prediction = await batcher.predict("sentiment", ["a fine book"])
"""

from coterie.runtime.batching._admission import Limits
from coterie.runtime.batching._batcher import Batcher, BatchObserver

__all__ = ["BatchObserver", "Batcher", "Limits"]

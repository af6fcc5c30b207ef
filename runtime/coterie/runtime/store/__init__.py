"""Bundles of one model over time: immutable versions, and which of them is served.

    store/
      current.json         which version is served, which were before it, and which is on trial
      versions/1/          a bundle, never changed
      versions/2/
      failed/2.json        written by a server that could not load it: why

from coterie.runtime.store import Store

store = Store.create("store/")
number = store.add("bundle/")
store.switch(number)
store.rollback()
"""

from coterie.runtime.store._pointer import Pointer, Trial
from coterie.runtime.store._store import Store, is_store

__all__ = ["Pointer", "Store", "Trial", "is_store"]

"""Bodies that are not whole yet: clients that stop in the middle of them should not fill the memory."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from coterie.runtime.errors import OverloadedError


class Receiving:
    """Counts the bytes of the bodies that all connections have sent a part of.

    Args:
        most: Bytes together; whoever sends more is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.nbytes = 0

    def body(self) -> PartialBody:
        """Return what counts one body, until it is whole or given up."""
        return PartialBody(self)

    def add(self, nbytes: int, own: int) -> None:
        """Count some more of a body of which ``own`` have come; one alone may be as large as it is.

        Raises:
            OverloadedError: If that is too much.
        """
        self.nbytes += nbytes
        if self.nbytes > max(self._most, own):
            raise OverloadedError(
                "as many bytes are being received as this server holds: try again in a moment",
                retry_seconds=1,
            )


class PartialBody:
    """One body, as much of it as has come; a context that counts it out again at its end."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """Count a part of it; raises as ``Receiving.add`` does."""
        self.nbytes += nbytes
        self._receiving.add(nbytes, self.nbytes)

    def release(self) -> None:
        """Count it out."""
        self._receiving.nbytes -= self.nbytes
        self.nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

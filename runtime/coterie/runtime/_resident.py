"""What a process holds in memory."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes(pid: int | None = None) -> int | None:
    """Return the memory of a process in bytes, of what it shares with n others 1/n (PSS); None if unknown.

    Args:
        pid: The process; this one, if not given.
    """
    try:
        lines = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended, or this system does not tell
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), None)

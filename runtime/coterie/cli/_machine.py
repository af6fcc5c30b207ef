"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("coterie", "onnxruntime", "onnxruntime-gpu", "numpy", "torch")


def machine() -> dict[str, str | int]:
    """Describe the machine, and the versions that matter of what is installed."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        "python": platform.python_version(),
        **_versions(),
    }


def in_words() -> str:
    """Return the same on one line."""
    known = machine()
    versions = "".join(f", {name} {known[name]}" for name in _PACKAGES if name in known)
    return (
        f"{known['processor']}, {known['cores']} cores, {known['system']}, Python {known['python']}{versions}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

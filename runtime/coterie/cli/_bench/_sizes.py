"""How many bytes a bundle saves, from its manifest."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.runtime.manifest import Manifest


@dataclass(frozen=True)
class Sizes:
    """Bytes of the same tasks in different shapes.

    Attributes:
        bundle: All files that a server needs: graphs, weights, manifest; not the report.
        weights: Of these, the weights, held once.
        standalone: A self-contained file for each task. None where the bundle does not say.
        single_task: Weights if every task had a copy of its own of each block that it uses.
        dense: Weights of every block that was trained: one mixture of all. None where it is not known.
    """

    bundle: int
    weights: int
    standalone: int | None
    single_task: int | None
    dense: int | None

    @classmethod
    def of(cls, manifest: Manifest, manifest_bytes: int) -> Sizes:
        """Return the sizes that a manifest tells."""
        files = sum(entry.length for name, entry in manifest.files.items() if not name.endswith(".html"))
        return cls(
            bundle=files + manifest_bytes,
            weights=manifest.sizes["weights"],
            standalone=manifest.sizes.get("standalone"),
            single_task=sum(kind.copies for kind in manifest.kinds.values()) or None,
            dense=manifest.sizes.get("dense"),
        )

"""The bundle that an export replaces: what of it is still the same, and need not be checked again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo

from coterie.exporter._verify import Checked
from coterie.exporter._weights import WeightFile
from coterie.runtime import load_bundle
from coterie.runtime.errors import CoterieError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, Provenance


class Contents:
    """What lies in a bundle's folder, wherever in the weight file it lies.

    Args:
        folder: The bundle's folder.
        weights: Its weight file.
    """

    def __init__(self, folder: Path, weights: WeightFile) -> None:
        self._folder = folder
        self._weights = weights
        self._parts: dict[tuple[int, int], bytes] = {}

    def graph(self, file: str) -> bytes:
        """Return a hash of a graph and of all tensors that it refers to: equal ones answer alike."""
        model = ModelProto.FromString((self._folder / file).read_bytes())
        digest = hashlib.sha256()
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                place = ExternalDataInfo(tensor)
                digest.update(self._part(int(place.offset or 0), int(place.length or 0)))
                del tensor.external_data[:]
        digest.update(model.SerializeToString(deterministic=True))
        return digest.digest()

    def blocks(self, manifest: Manifest) -> dict[str, tuple[bytes, int]]:
        """Return for each block a hash of its tensors, and their bytes."""
        found = {}
        for name, uses in manifest.tensors.items():
            digest, total = hashlib.sha256(), 0
            for use in uses:
                span = self._weights.spans[use.tensor]
                length = span.part(use.shape)
                digest.update(self._part(span.start + use.offset, length))
                total += length
            found[name] = (digest.digest(), total)
        return found

    def _part(self, start: int, length: int) -> bytes:
        if (start, length) not in self._parts:
            with (self._folder / WEIGHTS).open("rb") as file:
                file.seek(start)
                self._parts[start, length] = hashlib.sha256(file.read(length)).digest()
        return self._parts[start, length]


@dataclass(frozen=True)
class Previous:
    """A published bundle that an export replaces.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
        weights: Its weight file.
    """

    folder: Path
    manifest: Manifest
    weights: WeightFile

    @classmethod
    def at(cls, destination: Path) -> Previous | None:
        """Return the bundle at a destination; None where there is none, or one that is not whole."""
        try:
            bundle = load_bundle(destination)
        except CoterieError:
            return None
        return cls(bundle.path, bundle.manifest, WeightFile.read(bundle.path / WEIGHTS))

    def known(
        self, now: Contents, checked: Checked, provenance: Provenance, tolerance: float
    ) -> dict[str, float | None]:
        """Return the tasks that answer as they did, and their largest difference; None if not asked then.

        Args:
            now: What the new bundle holds.
            checked: Its tasks and graphs.
            provenance: Where it comes from; of other versions, nothing that was checked counts.
            tolerance: What is tolerated now; less than was tolerated then, and nothing counts.
        """
        was, parity = self.manifest.provenance, self.manifest.parity
        software = (provenance.coterie, provenance.versions)
        if (was.coterie, was.versions) != software or parity.tolerance > tolerance:
            return {}
        before = Contents(self.folder, self.weights)
        files = {entry.task: entry.graph for entry in self.manifest.tasks}
        return {
            task.name: parity.tasks.get(task.name)
            for task, graph in zip(checked.tasks, checked.graphs, strict=True)
            if task in files and before.graph(files[task]) == now.graph(graph)
        }

    def changes(self, now: Contents, manifest: Manifest) -> str:
        """Return in words what of the new bundle was not in this one."""
        files = {entry.sha256 for entry in self.manifest.files.values()}
        graphs = [manifest.files[entry.graph].sha256 for entry in manifest.tasks]
        kept = sum(graph in files for graph in graphs)
        there = {digest for digest, _ in Contents(self.folder, self.weights).blocks(self.manifest).values()}
        blocks = now.blocks(manifest)
        new = [(digest, size) for digest, size in blocks.values() if digest not in there]
        return (
            f"task graphs: {kept} as they were, {len(graphs) - kept} rewritten; "
            f"blocks: {len(blocks) - len(new)} as they were, {len(new)} new "
            f"({sum(size for _, size in new) / 1024:.1f} KiB)"
        )

    def keep_times(self, folder: Path, manifest: Manifest) -> None:
        """Give files that are as they were their time back, so that what copies by time passes over them."""
        same = [name for name, entry in manifest.files.items() if self.manifest.files.get(name) == entry]
        if (folder / MANIFEST).read_bytes() == (self.folder / MANIFEST).read_bytes():
            same.append(MANIFEST)
        for name in same:
            status = (self.folder / name).stat()
            os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))

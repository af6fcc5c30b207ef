"""A manifest that agrees with itself, and asks for nothing that no export asks for."""

from __future__ import annotations

import math
import re

from coterie.runtime.bundle._files import AGAIN
from coterie.runtime.bundle._safetensors import TensorIndex
from coterie.runtime.errors import BundleError, IntegrityError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
"""Safe on every file system; also what an export calls its files."""
_GRAPH = ".onnx"
"""ONNX Runtime takes other endings for other formats, which are not checked."""

_ROUTERS_OWN = frozenset({"row", "task"})

_MOST_AXES = 32
_MOST_ENTRIES = 1 << 28
"""Of one input, 1 GiB of float32: an engine makes one to warm up."""
_MOST_TOKENS, _MOST_CHARACTERS, _LARGEST_ID = 1 << 24, 1 << 12, 1 << 31


def check_names(manifest: Manifest) -> None:
    """Check that the manifest names only files directly inside its folder, and all that it needs.

    Raises:
        IntegrityError: If a name is of no file of a bundle, or a file that is needed is not listed.
        BundleError: If the plan is of other tasks, or texts go into an input that takes no tokens.
    """
    for name in manifest.files:
        if not _NAME.fullmatch(name) or name == MANIFEST:
            raise IntegrityError(f"{MANIFEST} lists {name!r}, which is not a file of the bundle: {AGAIN}")
    graphs = {manifest.router: "the router graph"}
    if manifest.router_parts is not None:
        parts = manifest.router_parts
        graphs |= {parts.host: "the router's dispatch", parts.device: "the router without its dispatch"}
    graphs |= {entry.graph: f"the graph of task {entry.task.name!r}" for entry in manifest.tasks}
    needed = {WEIGHTS: "the weights"} | graphs
    if manifest.text is not None:
        needed[manifest.text.tokenizer] = "the tokenizer"
    for name, purpose in needed.items():
        if name not in manifest.files:
            raise IntegrityError(f"{MANIFEST} does not list {name!r}, {purpose}: {AGAIN}")
        if name in graphs and not name.endswith(_GRAPH):
            raise IntegrityError(
                f"{MANIFEST} calls {name!r} {purpose}: a graph's file ends in {_GRAPH}; {AGAIN}"
            )
    if manifest.plan.tasks != tuple(entry.task.name for entry in manifest.tasks):
        raise BundleError(f"{MANIFEST}: the sharing plan is of other tasks than the task list: {AGAIN}")
    names = [spec.name for spec in manifest.inputs]
    if len(set(names)) != len(names) or not _ROUTERS_OWN.isdisjoint(names):
        raise BundleError(f"{MANIFEST}: two tensors of the router graph have one name among {names}: {AGAIN}")
    if manifest.text is not None and [spec.dtype for spec in manifest.inputs].count("int64") != 1:
        dtypes = ", ".join(spec.dtype for spec in manifest.inputs)
        raise BundleError(f"{MANIFEST}: text needs one int64 token input, not {dtypes}: {AGAIN}")
    if len(names) > 1 and any(entry.task.kind == "tagging" for entry in manifest.tasks):
        raise BundleError(f"{MANIFEST}: taggings have one input, not {len(names)}: {AGAIN}")


def check_sizes(manifest: Manifest) -> None:
    """Check that no number of the manifest makes a reader reserve more memory than an input can need.

    Raises:
        BundleError: If one does.
    """
    problems = []
    for spec in manifest.inputs:
        fixed = [size for size in spec.shape if size is not None]
        sensible = 1 <= len(spec.shape) <= _MOST_AXES and spec.shape[0] is None
        if not sensible or min(fixed, default=1) < 1 or math.prod(fixed) > _MOST_ENTRIES:
            problems.append(f"the shape of input {spec.name[:80]!r} is of no input")
    if manifest.text is not None:
        if manifest.text.max_length > _MOST_TOKENS or manifest.text.pad_id > _LARGEST_ID:
            problems.append("texts are longer than any, or their padding is no token id")
        if manifest.text.words is not None and manifest.text.words.length > _MOST_CHARACTERS:
            problems.append("words are longer than any")
    if problems:
        raise BundleError(f"{MANIFEST}: {'; '.join(problems)}: {AGAIN}")


def check_tensors(index: TensorIndex, manifest: Manifest) -> None:
    """Check that every tensor of every block lies inside its tensor of the weight file.

    Raises:
        IntegrityError: If one does not.
    """
    for block, uses in manifest.tensors.items():
        for use in uses:
            span = index.spans.get(use.tensor)
            if span is None:
                raise IntegrityError(
                    f"{WEIGHTS!r} has no tensor for {use.name!r} of block {block!r}: {AGAIN}"
                )
            natural = len(use.shape) <= _MOST_AXES and min(use.shape, default=0) >= 0
            if not natural or use.offset + span.part(use.shape) > span.length:
                raise IntegrityError(f"{use.name!r} of block {block!r} reaches past its tensor: {AGAIN}")

"""The manifest of a bundle: the one file that says what all the others are.

A reader refuses a newer version; an older one stays readable. Version 2 added stages that concatenate or read
columns, and tagging. Version 3 says which graphs were asked, and
which precision weights are stored in. Version 4 has the router in two parts as well.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coterie.runtime._json import unique_names
from coterie.runtime.errors import BundleError
from coterie.runtime.plan import SharingPlan, StageKind
from coterie.runtime.tasks import TaskSpec

SCHEMA_VERSION = 4
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_CHECKSUM = "checksum"
SIGNATURE = "manifest.sig"
"""Beside the manifest where a bundle is signed; in no list."""

DType = Literal["float32", "int64", "uint8"]

Precision = Literal["fp32", "int8", "fp16", "bf16"]
"""What weights are stored in, and, but for bf16, computed in."""

FIRST_CHARACTER = 2
"""Ids of characters begin here: 0 fills up short words, 1 is a character that is not known."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Frozen):
    """A named tensor of a graph; ``None`` is a dimension of any size, the first one is the batch."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]


class WordSpec(_Frozen):
    """How words become ids: each its own id and its characters', [R, L, 1 + W]."""

    length: int = Field(ge=1)
    """Characters of a word, W; longer words are cut, shorter ones filled up with 0."""
    characters: str
    """The known characters, with ids from 2 on; 1 is any other."""

    @property
    def ids(self) -> int:
        """Number of character ids."""
        return len(self.characters) + FIRST_CHARACTER


class TextSpec(_Frozen):
    """How raw text becomes the graphs' token input."""

    tokenizer: str
    """File of the bundle, as the ``tokenizers`` library writes it."""
    max_length: int = Field(ge=1)
    """Longer texts are cut after this many tokens."""
    pad_id: int = Field(default=0, ge=0)
    words: WordSpec | None = None
    """For inputs that are lists of words, or texts split at spaces: the tokenizer's vocabulary is words."""


class FileEntry(_Frozen):
    """Length and checksum of one file of the bundle."""

    length: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TaskEntry(_Frozen):
    """One task: its outputs, its graph and what it scored."""

    task: TaskSpec
    graph: str
    """File of the bundle."""
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Split to metric name to value, for example ``{"test": {"accuracy": 0.91}}``."""
    measured: dict[str, dict[str, float]] = Field(default_factory=dict)
    """The same of the bundle itself, asked through its router; empty where there was no data to ask about."""


class TensorUse(_Frozen):
    """A block's tensor: where in the weight file it lies."""

    name: str
    """The parameter's name inside the block."""
    tensor: str
    """Key in ``weights.safetensors``, the content hash."""
    shape: tuple[int, ...]
    offset: int = Field(default=0, ge=0)
    """Bytes from the start of that tensor: the equal-shaped heads lie in one stacked tensor."""


class Provenance(_Frozen):
    """Where a bundle comes from. No times and no machine names: two exports of one run are identical."""

    coterie: str
    config: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    data_sha256: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Parity(_Frozen):
    """What the export checked against the torch model."""

    tolerance: float
    max_abs_error: float
    """Largest absolute difference of a score, over every graph and input checked."""
    graphs: int
    """Graphs that were asked, the router among them."""
    inputs: int
    """Inputs that each of them was asked about."""
    of: int | None = None
    """Graphs in the bundle; of bundles before version 3, every one was asked."""
    tasks: dict[str, float] = Field(default_factory=dict)
    """The largest difference of each task graph that was asked, by the task's name."""
    metrics: float | None = None
    """Largest difference of a task's metric between bundle and torch; of metrics above 1, relative to them.
    None where there was no data to measure them on."""


class PrecisionReport(_Frozen):
    """What became of the weights of an export in less than fp32."""

    asked: Precision
    blocks: dict[str, Precision]
    """Block name to what its weights are stored in; what was too small to gain, or cost too much, is fp32."""
    costly: tuple[str, ...] = ()
    """Those of the blocks in fp32 that cost some task too much in another precision."""
    score_difference: float
    """Largest absolute difference of a score from the torch model's."""
    max_metric_drop: float | None = None
    """Points that a task was allowed to lose on validation data; a point is 0.01 of its metric."""
    drops: dict[str, float] = Field(default_factory=dict)
    """Task to the points that it lost there; negative where it gained. Empty where nothing was measured."""


class RouterParts(_Frozen):
    """The router once more, in two files: what can be computed before there are states, and the rest."""

    host: str
    """``(count, row, task)``, the number of inputs and the questions, to the dispatch."""
    device: str
    """Inputs and dispatch to scores and probabilities."""


class ColumnCut(_Frozen):
    """What stitched columns were made to take no longer from each other."""

    threshold: float
    """Shares (alpha) of a smaller size are 0; the largest of each subspace is kept, however small."""
    cut: int
    """Shares that were cut,"""
    of: int
    """of so many that were not 0."""
    max_metric_drop: float
    """Points that a task was allowed to lose on validation data; a point is 0.01 of its metric."""
    drops: dict[str, float]
    """Task to the points that it lost there; negative where it gained."""


class KindSizes(_Frozen):
    """Bytes of the blocks of all stages of one kind, in the precision that they are stored in."""

    copies: int = Field(ge=0)
    """If every task had a copy of its own of the blocks that it uses."""
    trained: int = Field(ge=0)
    """All blocks that were trained, used or not."""
    kept: int = Field(ge=0)
    """In the weight file. A tensor that equals another counts where it comes first."""


class Manifest(_Frozen):
    """Everything a runtime needs to know of a bundle."""

    schema_version: int = SCHEMA_VERSION
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    text: TextSpec | None = None
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    router: str
    """File of the router graph."""
    router_parts: RouterParts | None = None
    """The same for a device that the dispatch is not computed on; None in bundles before version 4."""
    plan: SharingPlan
    tensors: dict[str, tuple[TensorUse, ...]]
    """Block name to its tensors."""
    files: dict[str, FileEntry]
    """Every file of the bundle but the manifest itself."""
    sizes: dict[str, int] = Field(default_factory=dict)
    """Bytes, by what they are: ``weights``, ``standalone`` (all tasks as single files), ..."""
    kinds: dict[StageKind, KindSizes] = Field(default_factory=dict)
    """Bytes of weights before and after, by kind of stage; what is kept adds up to ``sizes["weights"]``."""
    parity: Parity
    """In less than fp32 against the bundle's own answers, one question at a time; see ``precision``."""
    precision: PrecisionReport | None = None
    """None where every weight is as it was trained, fp32."""
    column_cut: ColumnCut | None = None
    """None where stitched columns take from each other as they were trained to."""
    provenance: Provenance

    def dumps(self) -> str:
        """Return the manifest as JSON, a line for each key, sorted: the same bytes for the same content."""
        raw = with_checksum(self.model_dump(mode="json"))
        # Indented all the way down, a thousand tasks' manifest would be two thirds longer.
        lines = [
            f"{json.dumps(key)}: "
            + json.dumps(raw[key], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            for key in sorted(raw)
        ]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def with_checksum(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest, as JSON has it, with the SHA-256 of all else in it.

    The manifest holds every other file's checksum; its own tells a damaged manifest from a whole one. Only a
    signature tells who made it.
    """
    rest = {key: value for key, value in raw.items() if key != _CHECKSUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, _CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def parse_manifest(text: str | bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: If it is not JSON, of a newer schema, or not a manifest.
    """
    try:
        raw = json.loads(text, object_pairs_hook=unique_names)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} is not JSON ({error}): export the bundle again") from error
    except RecursionError as error:
        raise BundleError(f"{MANIFEST} is nested too deeply: this is not a coterie bundle") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
        raise BundleError(f"{MANIFEST} has no schema_version: this is not a coterie bundle")
    if raw["schema_version"] > SCHEMA_VERSION:
        raise BundleError(
            f"{MANIFEST} is of schema version {raw['schema_version']}, this coterie reads up to "
            f"{SCHEMA_VERSION}: upgrade coterie"
        )
    # Bundles before version 3 have none.
    if _CHECKSUM in raw and with_checksum(raw) != raw:
        raise BundleError(f"{MANIFEST} was altered: its checksum differs; copy or export the bundle again")
    raw.pop(_CHECKSUM, None)
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:10]]
        raise BundleError("\n  ".join([f"{MANIFEST} is not valid:", *lines])) from error

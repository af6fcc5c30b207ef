"""What a bundle's graph may hold, checked before ONNX Runtime sees it.

A checksum says that a graph is the one its bundle was made with, not that its author meant well. ONNX Runtime
reads any file in a graph's folder that the graph names, and has operators that name files of their own or
repeat a graph as often as a number says. An exported graph needs none of that, so that none is let through:

- weights lie in the graph, or inside one tensor of the bundle's weight file, nowhere else;
- every operator is one of ONNX's own, as exports write them; none is a loop, or defined by the file itself.

How long a graph takes and how much memory, and whether its answers are true, cannot be read from it: see the
notes on safety in ``docs/export.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from coterie.runtime.bundle._protobuf import Value, WireError, fields, part, text
from coterie.runtime.bundle._safetensors import TensorIndex
from coterie.runtime.errors import IntegrityError
from coterie.runtime.manifest import WEIGHTS

_STANDARD = ("", "ai.onnx")
_UNBOUNDED = frozenset({"Loop", "Scan", "SequenceMap"})
_DEEPEST = 8
"""Graphs within graphs; the exporter makes one branch, in which a traced block may have a few of its own."""

# Field numbers, from the definition of the ONNX format.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass(frozen=True)
class _Checker:
    file: str
    weights: TensorIndex

    def model(self, content: bytes) -> None:
        graphs = 0
        for number, value in fields(memoryview(content)):
            if number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
                raise self._refused("defines operators or a training of its own")
            if number == _MODEL_GRAPH:
                graphs += 1
                self._graph(part(value), depth=0)
        # Protobuf would join several into one; no export writes it so.
        if graphs != 1:
            raise self._refused(f"holds {graphs} graphs, not one")

    def _graph(self, graph: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._refused(f"has graphs within graphs, deeper than {_DEEPEST}")
        for number, value in fields(graph):
            if number == _GRAPH_SPARSE:
                raise self._refused("has a sparse tensor")
            if number == _GRAPH_INITIALIZER:
                self._tensor(part(value))
            elif number == _GRAPH_NODE:
                self._node(part(value), depth)

    def _node(self, node: memoryview, depth: int) -> None:
        operator, domain = "", ""
        for number, value in fields(node):
            if number == _NODE_OP:
                operator = text(value)
            elif number == _NODE_DOMAIN:
                domain = text(value)
            elif number == _NODE_ATTRIBUTE:
                self._attribute(part(value), depth)
        if operator in _UNBOUNDED:
            raise self._refused(f"has a {operator}, which runs as long as a number in the file says")
        if domain not in _STANDARD:
            raise self._refused(
                f"has an operator {operator[:80]!r} of {domain[:80]!r}, which no export writes"
            )

    def _attribute(self, attribute: memoryview, depth: int) -> None:
        for number, value in fields(attribute):
            if number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(part(value), depth + 1)
            elif number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(part(value))
            elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                raise self._refused("has a sparse tensor")

    def _tensor(self, tensor: memoryview) -> None:
        """Check where a tensor's data lie."""
        name, outside, places = "", False, []
        for number, value in fields(tensor):
            if number == _TENSOR_NAME:
                name = text(value)
            elif number == _TENSOR_LOCATION:
                outside |= value != 0
            elif number == _TENSOR_EXTERNAL:
                places.append(_entry(value))
        if outside or places:
            self._place(name, places)

    def _place(self, name: str, places: list[tuple[str, str]]) -> None:
        place = dict(places)
        if len(place) != len(places) or place.keys() != {"location", "offset", "length"}:
            raise self._refused(f"does not say once where the tensor {name[:80]!r} lies")
        if place["location"] != WEIGHTS:
            raise self._refused(f"refers to a file that is not {WEIGHTS!r}")
        start, length = (_natural(place[key]) for key in ("offset", "length"))
        if length and not self.weights.holds(start, length):
            raise self._refused(f"reads {name[:80]!r} from outside of the tensors of {WEIGHTS!r}")

    def _refused(self, why: str) -> IntegrityError:
        return IntegrityError(
            f"graph {self.file!r} {why}: it is not loaded; export the bundle again, or do not trust it"
        )


def check_graph(file: str, content: bytes, weights: TensorIndex) -> None:
    """Check that a graph holds only what an export writes, and refers to nothing but its bundle's weights.

    Args:
        file: The graph's file, for the message.
        content: The bytes of that file.
        weights: The tensors of the bundle's weight file.

    Raises:
        IntegrityError: If it does not; the message says what was found.
    """
    try:
        _Checker(file, weights).model(content)
    except WireError as error:
        raise IntegrityError(
            f"graph {file!r} is not an ONNX file ({error}): copy or export the bundle again"
        ) from error


def _entry(value: Value) -> tuple[str, str]:
    pair = {number: text(field) for number, field in fields(part(value))}
    return pair.get(_ENTRY_KEY, ""), pair.get(_ENTRY_VALUE, "")


def _natural(digits: str) -> int:
    # int() would take signs, spaces, underscores and the digits of other scripts as well.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise WireError("a place in the weight file is no number")
    return int(digits)

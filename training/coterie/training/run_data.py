"""What a model takes and answers: what is kept of a data set."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from coterie.runtime.manifest import TensorSpec, TextSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import InputShape


class RunData(BaseModel):
    """What a model takes and answers: all that is needed of a data set once the training is over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[TensorSpec, ...]
    tasks: tuple[TaskSpec, ...]
    vocabulary: int
    text: TextSpec | None
    sha256: str

    @model_validator(mode="before")
    @classmethod
    def _one_input(cls, raw: Any) -> Any:
        # Runs of before there could be several have one, called so.
        if isinstance(raw, dict) and "input" in raw:
            return {"inputs": [raw["input"]], **{key: raw[key] for key in raw if key != "input"}}
        return raw

    def shapes(self, words: tuple[str, ...] = ()) -> tuple[InputShape, ...]:
        """Return the shape of each input, whose token ids stand for ``words``."""
        return tuple(self._shape(spec, words) for spec in self.inputs)

    def _shape(self, spec: TensorSpec, words: tuple[str, ...]) -> InputShape:
        return InputShape(
            dims=spec.shape[1:],
            tokens=spec.dtype == "int64",
            vocabulary=self.vocabulary,
            pad_id=0 if self.text is None else self.text.pad_id,
            words=words,
            characters=0 if self.text is None or self.text.words is None else self.text.words.ids,
        )

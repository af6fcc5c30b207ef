"""Which data, and which column is what: the configuration of every kind of data set."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coterie.training.data._config_parts import (
    AnyNames,
    ArrayInput,
    Count,
    Files,
    Frozen,
    Kinds,
    Labels,
    Names,
    Share,
    TableInput,
    check_input_names,
)
from coterie.training.yaml_config import AbsolutePath


class SplitColumn(Frozen):
    """The column (or array) that says to which split a row belongs."""

    column: str
    train: Names = ("train",)
    """The values that mean training data."""
    dev: Names = ("dev",)
    test: Names = ("test",)
    ood: AnyNames = ()
    """Those of a second test set, out of the training data's domain; it is reported beside the first."""
    unlabeled: AnyNames = ()
    """Those whose texts word vectors may be learned from; nothing is asked about them."""
    ignore: tuple[str, ...] = ()
    """Values (or patterns such as ``*``) whose rows are left out; any other value is a mistake."""


class TokenOptions(Frozen):
    """The tokenizer: trained on the training split, or read from a file."""

    tokenizer: Literal["whitespace", "words", "bpe", "file"] = "whitespace"
    """``whitespace``: what stands between spaces; ``words``: punctuation is split off as well, for raw text;
    ``bpe``: byte-level pieces of words, nothing is ever unknown; ``file``: as somebody else trained it."""
    file: AbsolutePath | None = None
    """For ``file``: a ``tokenizer.json`` as a pre-trained encoder's folder has."""
    vocabulary: Annotated[int, Field(ge=3)] = 50_000
    """Largest number of token ids, padding and unknown included."""
    min_frequency: Count = 2
    """Rarer tokens are unknown."""
    lowercase: bool = True
    max_length: Count = 512
    """Longer texts are cut after this many tokens; lists of words may not be longer."""
    word_length: Count = 16
    """Characters that are read of each word, where the texts are lists of words."""

    @model_validator(mode="after")
    def _bytes_fit(self) -> Self:
        if self.tokenizer == "bpe" and self.vocabulary < 300:
            raise ValueError("a bpe tokenizer needs a vocabulary of at least 300, for the 256 bytes alone")
        if (self.tokenizer == "file") != (self.file is not None):
            raise ValueError("tokenizer: file and file: PATH belong together; give both, or neither")
        return self


class _SplitShares(Frozen):
    """How the rows are divided where the data does not say."""

    dev_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training inputs that become the dev split, when the data has none."""
    test_share: Share = 0.0
    """Share of the training inputs that become the test split, when the data has none."""
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training inputs that are kept, after dev and test were cut."""
    seed: int = 0
    """Of whatever is drawn; the division depends on it and on the inputs' content alone."""


class _Questions(_SplitShares):
    """What is asked, wherever the data is."""

    task: str | None = None
    """Column that names the task of a row; without it every target column is a task of its own."""
    target: Names
    """Column(s) of the answers."""
    weight: str | None = None
    """Column of the rows' weights."""
    split: SplitColumn | None = None
    tasks: tuple[str, ...] | None = None
    """The tasks to keep, in this order; default all."""
    other_tasks: Literal["error", "ignore"] = "error"
    """What a task that is not among ``tasks`` means."""
    task_kind: Kinds = Field(default_factory=dict)
    """classification, multilabel or regression: for all tasks, or for each by name (``*``: the others)."""
    labels: Labels = Field(default_factory=dict)
    """Names of the classes or labels in order: for all tasks, or for each by name (``*``: the others)."""
    classes: Literal["within_task", "shared"] = "within_task"
    """Undeclared classes are those seen in a task, ranked; or those seen in any task."""


class _Files(_Questions):
    """What is asked of files; shared by tables and arrays."""

    path: Files
    """One file, or one for each split: ``{train: ..., dev: ..., test: ...}``."""

    @model_validator(mode="after")
    def _one_division(self) -> Self:
        if "all" in self.path and len(self.path) > 1:
            raise ValueError("path: give one file, or files by split, not both")
        if "all" not in self.path and "train" not in self.path:
            raise ValueError("path: a train file is missing")
        if self.split is not None and "all" not in self.path:
            raise ValueError(
                "split: the files already say which split a row belongs to; leave one of the two out"
            )
        return self


class TableConfig(_Files):
    """A table: Parquet, CSV or JSON lines."""

    kind: Literal["table"] = "table"
    format: Literal["parquet", "csv", "jsonl"] | None = None
    """Default: by the file's ending."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Between the cells of a CSV file; a file that ends in ``.tsv`` has tabs."""
    text: str | None = None
    """Column of the texts, or of lists of words."""
    empty_texts: Literal["error", "drop"] = "error"
    """What a row without a text means: a mistake, or a row to leave out."""
    features: Names | None = None
    """Columns of the features: names, patterns such as ``x_*``, or one column of lists."""
    inputs: dict[str, TableInput] | None = None
    """In place of text or features: several inputs, by their names; one of them at most is a text."""
    tokens: TokenOptions = TokenOptions()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.text, self.features, self.inputs].count(None) != 2:
            raise ValueError("give either text (one column), features (one or more columns) or inputs")
        if self.inputs is not None:
            check_input_names(self.inputs)
        texts = [name for name, one in (self.inputs or {}).items() if one.text is not None]
        if len(texts) > 1:
            raise ValueError(
                f"inputs: {' and '.join(texts)} are texts: a model reads one; join them in one column"
            )
        return self

    def named(self) -> dict[str, TableInput]:
        """Return every input, by its name."""
        if self.inputs is not None:
            return self.inputs
        only = TableInput(text=self.text, features=self.features)
        return {"inputs" if self.text is None else "tokens": only}


class ArrayConfig(_Files):
    """NumPy archives (``.npz``) of images or features; every column is the name of an array."""

    kind: Literal["arrays"] = "arrays"
    images: str | None = None
    """Array ``[n, H, W, C]`` (or ``[n, H, W]``) uint8."""
    features: str | None = None
    """Array ``[n, D]``."""
    inputs: dict[str, ArrayInput] | None = None
    """In place of images or features: several inputs, by their names."""
    row: str | None = None
    """Array ``[Q]``: the input that each element of task and target is about; default: one each."""
    task_names: str | None = None
    """Array of names that the numbers in ``task`` (or the columns of ``target``) stand for."""
    target_names: str | None = None
    """Array of names that the numbers in ``target`` stand for."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.images, self.features, self.inputs].count(None) != 2:
            raise ValueError("give either images or features (the name of one array), or inputs")
        if self.inputs is not None:
            check_input_names(self.inputs)
        if self.row is not None and self.task is None:
            raise ValueError("row: arrays of questions need a task array as well")
        return self

    def named(self) -> dict[str, ArrayInput]:
        """Return every input, by its name."""
        if self.inputs is not None:
            return self.inputs
        only = ArrayInput(images=self.images, features=self.features)
        return {"inputs" if self.images is None else "image": only}


class MemoryConfig(_Questions):
    """Data that the program has in memory; ``dataset_of`` makes it, and ``train(..., dataset=)`` takes it."""

    kind: Literal["memory"] = "memory"
    target: Names = ("target",)
    """Names of the answers' columns."""
    tokens: TokenOptions = TokenOptions()


class DigitsConfig(Frozen):
    """scikit-learn's handwritten digits, 8 x 8 pixels, asked twenty questions; nothing is downloaded."""

    kind: Literal["digits"] = "digits"
    images: bool = False
    """Images ``[8, 8, 1]`` uint8 instead of 64 features."""
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images that are kept."""
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images that each task knows the answer for, drawn for each task."""
    seed: int = 0


class PlantedConfig(Frozen):
    """Data with known clusters and known experts, to see whether a training finds them."""

    kind: Literal["planted"] = "planted"
    tasks: Count = 20
    """N."""
    features: Count = 16
    """Width of an input, D."""
    train_rows: Count = 500
    """Rows of each task."""
    dev_rows: Count = 100
    test_rows: Count = 200
    shared_inputs: bool = False
    """Whether all tasks are asked about the same inputs."""
    trunk: Annotated[int, Field(ge=0)] = 0
    """Width of a random layer that all tasks share; 0 for none."""
    experts: Annotated[int, Field(ge=0)] = 0
    """Number of true experts, M; 0 for no gated part."""
    experts_per_task: Count = 2
    expert_sets: Count | None = None
    """Number of distinct sets of experts that the tasks are divided among; default one for each task."""
    width: Count = 16
    """Width of the experts and of the cluster layers, E."""
    clusters: tuple[Count, ...] = ()
    """Clusters of each layer, from the first to the last, not decreasing; tasks of one cluster of a layer are
    of one cluster of the layer before."""
    difference: Annotated[float, Field(gt=0)] = 0.6
    """How far apart the maps of the second cluster layer are; the first layer's have nothing in common, and
    each later layer's are closer by this factor. Layers go from the general to the specific: what a later one
    tells apart is a nuance of an earlier one."""
    head_difference: Annotated[float, Field(ge=0)] = 0.1
    """How far apart the tasks' heads are; 0 for one head."""
    task_kind: Literal["classification", "regression"] = "regression"
    outputs: Count = 4
    """Numbers of a regression; a classification has as many classes, at least 2."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what is added to the standardised scores."""
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.experts and self.experts_per_task > self.experts:
            raise ValueError("experts_per_task is larger than experts")
        if list(self.clusters) != sorted(self.clusters):
            raise ValueError("clusters: a later layer has at least as many clusters as an earlier one")
        if self.clusters and self.clusters[-1] > self.tasks:
            raise ValueError("clusters: there are more clusters than tasks")
        if self.expert_sets is not None and self.expert_sets > self.tasks:
            raise ValueError("expert_sets: there are more sets of experts than tasks")
        if self.task_kind == "classification" and self.outputs < 2:
            raise ValueError("outputs: a classification needs at least 2 classes")
        return self


DataConfig = Annotated[
    TableConfig | ArrayConfig | MemoryConfig | DigitsConfig | PlantedConfig, Field(discriminator="kind")
]
"""Any kind of data set; ``kind`` says which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from coterie.runtime.errors import ConfigError
from coterie.training.yaml_config import dump_config, load_config


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Linear(Frozen):
    block: Literal["linear"] = "linear"
    width: Annotated[int, Field(ge=1)]


class Conv(Frozen):
    block: Literal["conv"] = "conv"
    filters: tuple[int, ...] = (32,)


class Hard(Frozen):
    kind: Literal["hard"] = "hard"
    block: Annotated[Linear | Conv, Field(discriminator="block")]


class Cluster(Frozen):
    kind: Literal["cluster"] = "cluster"
    clusters: int | Literal["auto"] = "auto"
    block: Annotated[Linear | Conv, Field(discriminator="block")] = Linear(width=8)


class Adam(Frozen):
    name: Literal["adam"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


class Sgd(Frozen):
    name: Literal["sgd"] = "sgd"
    lr: float = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Trainer(Frozen):
    epochs: Annotated[int, Field(ge=1)] = 10
    batch: int = 64
    shuffle: bool = True
    mode: Literal["fast", "exact"] = "fast"
    optimizer: Annotated[Adam | Sgd, Field(discriminator="name")] = Adam(lr=0.01)
    out: Path | None = None
    notes: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Trainer:
        if self.batch > 1000 and self.mode == "exact":
            raise ValueError("batch: exact mode takes at most 1000 rows: use a smaller batch")
        return self


class Config(Frozen):
    stages: tuple[Annotated[Hard | Cluster, Field(discriminator="kind")], ...] = (
        Hard(block=Linear(width=4)),
        Cluster(clusters=3),
    )
    trainer: Trainer = Trainer()


def load(source: Any = None, *overrides: str) -> Config:
    return load_config(Config, source=source or {}, overrides=overrides)


def mistakes(source: Any = None, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(source, *overrides)
    return caught.value.problems


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_a_yaml_file_becomes_a_frozen_configuration(tmp_path: Path) -> None:
    text = "trainer: {epochs: 3}\nstages:\n  - kind: cluster\n    clusters: 5\n"
    config = load(write(tmp_path, text))
    assert config.trainer.epochs == 3
    assert config.stages == (Cluster(clusters=5),)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing\n")) == Config()


@pytest.mark.parametrize(
    "words",
    [["trainer.epochs=5"], ["--trainer.epochs=5"], ["--trainer.epochs", "5"], ["trainer={epochs: 5}"]],
)
def test_every_form_of_override_works(words: list[str]) -> None:
    assert load({"trainer": {"epochs": 2}}, *words).trainer.epochs == 5


def test_overrides_reach_into_lists_and_the_last_one_wins() -> None:
    source = {"stages": [{"kind": "cluster"}, {"kind": "cluster"}]}
    config = load(source, "stages.1.clusters=5", "stages.1.clusters=7", "stages.0.block.width=2")
    assert [stage.clusters for stage in config.stages if isinstance(stage, Cluster)] == ["auto", 7]
    assert config.stages[0].block == Linear(width=2)


def test_overrides_of_options_that_the_file_leaves_out_start_from_the_defaults() -> None:
    config = load({}, "stages.1.clusters=9", "trainer.optimizer.betas=[0.5, 0.9]")
    assert config.stages == (Hard(block=Linear(width=4)), Cluster(clusters=9))
    assert config.trainer.optimizer == Adam(lr=0.01, betas=(0.5, 0.9))


def test_an_override_can_change_the_kind_of_a_default_group() -> None:
    assert load({}, "trainer.optimizer.name=sgd", "trainer.optimizer.momentum=0.5").trainer.optimizer == Sgd(
        lr=0.01, momentum=0.5
    )


def test_the_source_is_left_as_it_was() -> None:
    source = {"trainer": {"epochs": 2}}
    load(source, "trainer.epochs=5")
    assert source == {"trainer": {"epochs": 2}}


def test_values_are_yaml_1_2() -> None:
    source = {"trainer": {"notes": {}}}
    config = load(source, "trainer.optimizer.lr=1e-4", "trainer.notes={no: off, when: 12:30:00}")
    assert config.trainer.optimizer.lr == 1e-4
    assert config.trainer.notes == {"no": "off", "when": "12:30:00"}
    assert load({}, "trainer.shuffle=false", "trainer.batch=010").trainer.batch == 10


def test_all_mistakes_are_reported_at_once_with_their_paths() -> None:
    found = mistakes(
        {
            "trainer": {
                "epoch": 3,
                "batch": "many",
                "mode": "fats",
                "shuffle": 7,
                "optimizer": {"name": "adm"},
            },
            "stages": [
                {"kind": "hard"},
                {"kind": "cluster", "clusters": "five", "block": {"block": "linear", "width": 0}},
                {"kind": "clusters"},
                {"clusters": 3},
                {"kind": "hard", "block": {"block": "conv", "filters": [1, "x"], "nonsense": 1}},
            ],
        }
    )
    assert set(found) == {
        "trainer.epoch: unknown option 'epoch': did you mean 'epochs'?",
        "trainer.batch: is 'many': must be a whole number",
        "trainer.mode: is 'fats': must be 'fast' or 'exact' (did you mean 'fast'?)",
        "trainer.shuffle: is 7: must be true or false",
        "trainer.optimizer.name: is 'adm': must be one of adam, sgd (did you mean 'adam'?)",
        "stages.0.block: is missing: add it",
        "stages.1.clusters: is 'five': must be a whole number or 'auto'",
        "stages.1.block.width: is 0: must be at least 1",
        "stages.2.kind: is 'clusters': must be one of hard, cluster (did you mean 'cluster'?)",
        "stages.3.kind: is missing: add it; it must be one of hard, cluster",
        "stages.4.block.filters.1: is 'x': must be a whole number",
        "stages.4.block.nonsense: unknown option 'nonsense': remove it; the options are block, filters",
    }
    assert len(found) == 12


def test_a_key_that_looks_like_a_tag_stays_in_the_path() -> None:
    found = mistakes({"stages": [{"kind": "hard", "block": {"block": "linear", "width": 1, "linear": 2}}]})
    assert found == (
        "stages.0.block.linear: unknown option 'linear': remove it; the options are block, width",
    )


def test_what_validators_say_is_passed_on() -> None:
    assert mistakes({"trainer": {"mode": "exact", "batch": 2000}}) == (
        "trainer: batch: exact mode takes at most 1000 rows: use a smaller batch",
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epoch=5", "trainer.epoch: unknown option 'epoch': did you mean 'epochs'?"),
        ("trainr.epochs=5", "trainr: unknown option 'trainr': did you mean 'trainer'?"),
        ("stages.2.clusters=5", "stages.2.clusters: cannot be set: stages has 2 elements, counted from 0"),
        ("stages.a.clusters=5", "stages.a.clusters: cannot be set: stages has 2 elements, counted from 0"),
        ("trainer.batch.x=5", "trainer.batch.x: cannot be set: trainer.batch is 64, which has no options"),
        ("trainer.epochs", "'trainer.epochs' is not an override: write path=value, or --path value"),
        ("--trainer.epochs", "'--trainer.epochs' is not an override: write path=value, or --path value"),
        ("trainer..epochs=5", "'trainer..epochs=5': the path 'trainer..epochs' has an empty part: "
         "write for example trainer.epochs"),
        ("trainer.epochs=[", "trainer.epochs: '[' is not a YAML value: quote it"),
        ("trainer.epochs=0", "trainer.epochs: is 0: must be at least 1"),
        ("trainer.epochs=2.5", "trainer.epochs: is 2.5: must be a whole number"),
        ("trainer=5", "trainer: is 5: must be a group of options"),
        ("stages=5", "stages: is 5: must be a list"),
        ("trainer.optimizer.betas=[1.0]", "trainer.optimizer.betas.1: is missing: add it"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_a_mistake_at_its_path(override: str, said: str) -> None:
    assert mistakes({}, override) == (said,)


def test_wrong_overrides_are_listed_with_the_files_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path, "trainer:\n  epochs: 1\n  batch: x\n  epochs: 2\n")
    found = mistakes(path, "nonsense", "trainer.modes=fast")
    assert found == (
        "trainer.epochs: stands twice, on lines 2 and 4: remove one of them",
        "'nonsense' is not an override: write path=value, or --path value",
        "trainer.batch: is 'x': must be a whole number",
        "trainer.modes: unknown option 'modes': did you mean 'mode'?",
    )


def test_keys_that_stand_twice_in_an_inner_group_are_found(tmp_path: Path) -> None:
    path = write(
        tmp_path, "stages:\n- kind: cluster\n  kind: hard\n- {kind: cluster, clusters: 1, clusters: 2}\n"
    )
    assert mistakes(path)[:2] == (
        "stages.0.kind: stands twice, on lines 2 and 3: remove one of them",
        "stages.1.clusters: stands twice, on lines 4 and 4: remove one of them",
    )


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\tx: 1", "a: !!python/object:os.system {}", "--- 1\n--- 2"]
)
def test_what_is_no_yaml_is_said_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml, line \d+, column \d+: is not YAML"):
        load(write(tmp_path, text))


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_no_group_is_refused(tmp_path: Path) -> None:
    assert mistakes(write(tmp_path, "- 1\n")) == ("is [1]: must be a group of options",)


def test_a_root_model_has_no_path_of_its_own() -> None:
    class Root(RootModel[Annotated[Adam | Sgd, Field(discriminator="name")]]):
        pass

    with pytest.raises(ConfigError) as caught:
        load_config(Root, source={"name": "sgd"}, overrides=["momentum=2", "lrr=1"])
    assert set(caught.value.problems) == {
        "momentum: is 2: must be less than 1",
        "lrr: unknown option 'lrr': did you mean 'lr'?",
    }
    assert load_config(Root, source={"name": "sgd"}).root == Sgd()


def test_a_dumped_configuration_is_read_back_in_declaration_order(tmp_path: Path) -> None:
    config = load({"trainer": {"out": "runs/a", "notes": {"no": "on", "a": "1e-3", "b": "12", "c": ""}}})
    text = dump_config(config)
    assert load(write(tmp_path, text)) == config
    assert list(yaml.safe_load(text)) == ["stages", "trainer"]
    assert "betas: [0.9, 0.999]" in text
    assert dump_config(load(write(tmp_path, text))) == text


@given(
    notes=st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=4),
    lr=st.floats(allow_nan=False),
    epochs=st.integers(1, 10**12),
)
def test_any_configuration_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, notes: dict[str, str], lr: float, epochs: int
) -> None:
    try:
        "".join([*notes, *notes.values()]).encode()
    except UnicodeEncodeError:
        return
    config = Config(trainer=Trainer(notes=notes, optimizer=Sgd(lr=lr), epochs=epochs))
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load(path) == config


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["trainer", "epochs", "stages", "kind", "block", "hard", "linear", "optimizer"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_nonsense_is_a_config_error_and_never_anything_else(value: Any) -> None:  # fmt: skip
    source = value if isinstance(value, dict) else {"trainer": value, "stages": [value]}
    try:
        load(source)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right

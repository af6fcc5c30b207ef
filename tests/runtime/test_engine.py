from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from coterie.runtime import ConfigError, Engine, InvalidInputError, RequestError, UnknownTaskError, load
from coterie.runtime.engine._inputs import as_tensor
from coterie.runtime.manifest import TensorSpec

from .handmade import HandMade, hammer

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_every_task_answers_as_numpy_does(engine: Engine, features: HandMade) -> None:
    inputs = features.inputs(5)
    for name in features.names:
        prediction = engine.predict(name, inputs)
        np.testing.assert_allclose(prediction.scores, features.scores(name, inputs), **CLOSE)
        expected = features.probabilities(name, inputs)
        if expected is None:
            assert prediction.probabilities is None
        else:
            np.testing.assert_allclose(prediction.probabilities, expected, **CLOSE)


def test_every_task_answers_texts_as_numpy_does(text_engine: Engine, texts: HandMade) -> None:
    inputs = texts.inputs(7)
    for name in texts.names:
        np.testing.assert_allclose(
            text_engine.predict(name, inputs).scores, texts.scores(name, inputs), **CLOSE
        )


def test_labels_and_named_results_follow_the_probabilities(engine: Engine, features: HandMade) -> None:
    inputs = features.inputs(6)
    topic = engine.predict("topic", inputs)
    likeliest = features.scores("topic", inputs).argmax(axis=1)
    assert topic.label is not None
    assert topic.label.tolist() == [("arts", "sport", "news")[index] for index in likeliest]
    assert topic[2].label == topic.label[2]
    assert topic[2].probabilities is not None
    assert list(topic[2].probabilities) == ["arts", "sport", "news"]

    tags = engine.predict("tags", inputs)
    holds = features.scores("tags", inputs) >= 0
    assert tags.label is not None
    np.testing.assert_array_equal(tags.label, holds.astype(np.uint8))
    expected = tuple(label for label, yes in zip(("long", "loud", "new"), holds[0], strict=True) if yes)
    assert tags[0].label == expected

    price = engine.predict("price", inputs)
    assert price.label is None
    assert price[0].probabilities is None
    assert list(price[0].scores) == ["euro"]


def test_one_input_asked_of_all_tasks_gives_each_its_own_answer(engine: Engine, features: HandMade) -> None:
    inputs = features.inputs(1)
    prediction = engine.predict_many(inputs, [0] * 4, list(features.names))
    assert prediction.scores.shape == (4, 3)
    for index, name in enumerate(features.names):
        expected = features.scores(name, inputs)[0]
        np.testing.assert_allclose(prediction.scores[index, : len(expected)], expected, **CLOSE)
        assert not prediction.scores[index, len(expected) :].any()
        assert prediction[index].task == name
        assert len(prediction[index].scores) == len(expected)
    assert prediction.probabilities is not None
    assert not prediction.probabilities[3].any()  # a regression has none


def test_mixed_questions_by_name_and_by_index_agree(engine: Engine, features: HandMade) -> None:
    rng = np.random.default_rng(3)
    inputs, row = features.inputs(4), rng.integers(0, 4, 11)
    task = rng.integers(0, 4, 11)
    by_index = engine.predict_many(inputs, row, task)
    by_name = engine.predict_many(inputs, row.tolist(), [features.names[index] for index in task])
    np.testing.assert_array_equal(by_index.scores, by_name.scores)
    for at, (one, which) in enumerate(zip(row, task, strict=True)):
        expected = features.scores(features.names[which], inputs[one : one + 1])[0]
        np.testing.assert_allclose(by_index.scores[at, : len(expected)], expected, **CLOSE)


def test_a_task_for_each_input_needs_no_rows(engine: Engine, features: HandMade) -> None:
    inputs = features.inputs(2)
    prediction = engine.predict(["mood", "price"], inputs)
    assert [result.task for result in prediction] == ["mood", "price"]
    np.testing.assert_allclose(prediction.scores[1, :1], features.scores("price", inputs[1:])[0], **CLOSE)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4), dtype=np.float32)])
def test_no_inputs_give_no_answers(engine: Engine, empty: Any) -> None:
    assert engine.predict("topic", empty).scores.shape == (0, 3)
    tags = engine.predict("tags", empty)
    assert tags.label is not None
    assert tags.label.shape == (0, 3)
    assert engine.predict("price", empty).label is None
    assert len(engine.predict_many(empty, [], [])) == 0


def test_safe_casts_are_made(engine: Engine) -> None:
    expected = engine.predict("topic", np.array([[1, 2, 3, 4]], dtype=np.float32)).scores
    for same in ([[1, 2, 3, 4]], [[1.0, 2.0, 3.0, 4.0]], np.array([[1, 2, 3, 4]], dtype=np.float64)):
        np.testing.assert_array_equal(engine.predict("topic", same).scores, expected)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([[1.0, 2.0]], r"shape \[1, 2\], expected \[R, 4\]"),
        ([1.0, 2.0, 3.0, 4.0], "wrap it in a list"),
        ([[[1.0, 2.0, 3.0, 4.0]]], "expected"),
        ([[1.0, 2.0, 3.0, 4.0], [1.0]], "ragged"),
        ([[1.0, 2.0, 3.0, float("nan")]], "row 0 that is not a finite"),
        ([[0.0] * 4, [1e39, 0.0, 0.0, 0.0]], "row 1 that is not a finite"),
        ([[None, 1, 2, 3]], "mixed objects"),
        ([[1j, 0, 0, 0]], "complex"),
        ("text", "takes numbers, not text"),
        (["a text"], "takes numbers, not text"),
        (np.full((1, 4), 3e38, dtype=np.float32), "answer about input 0 is not finite"),
    ],
)
def test_a_wrong_input_is_refused_with_the_reason(engine: Engine, inputs: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        engine.predict("topic", inputs)


@pytest.mark.parametrize(
    ("row", "task", "says"),
    [
        ([0, 5], ["topic", "mood"], r"'row'\[1\] is 5"),
        ([0, -1], ["topic", "mood"], r"'row'\[1\] is -1"),
        ([0], ["topic", "mood"], "1 entries for 2"),
        ([0.5, 1.0], ["topic", "mood"], "integers"),
        ([[0, 1], [0, 1]], [0, 1], "vector"),
        (None, ["topic"], "say in 'row'"),
        ([0], [9], r"'task'\[0\] is 9"),
        ([0, 0], ["topic", 1], "only names, or only indices"),
        ([0], [0.5], "integers"),
    ],
)
def test_wrong_rows_and_tasks_are_refused(engine: Engine, row: Any, task: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        engine.predict_many(np.zeros((3, 4)), row, task)


def test_an_unknown_task_is_refused_and_a_close_one_suggested(engine: Engine) -> None:
    with pytest.raises(UnknownTaskError, match="did you mean 'topic'"):
        engine.predict("topics", [[0.0] * 4])
    with pytest.raises(UnknownTaskError, match="there are 'topic'"):
        engine.predict("zzz", [[0.0] * 4])
    with pytest.raises(UnknownTaskError) as caught:
        engine.predict("x" * 100_000, [[0.0] * 4])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([5], "text 0 is of type int: give a string"),
        ([""], "text 0"),
        (["good", 3], "text 1"),
        (["good", "  "], "text 1"),
        ([[1.5, 2.0]], "int64"),
        ([[1, -2]], "token id"),
        ([[1, 99]], "token id"),
        (["unheard"], "refuses a value"),
    ],
)
def test_a_wrong_text_is_refused_with_the_reason(text_engine: Engine, inputs: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        text_engine.predict("topic", inputs)
    assert "/" not in str(caught.value)


def test_one_string_is_one_text_and_long_texts_are_cut(text_engine: Engine, texts: HandMade) -> None:
    one = text_engine.predict("mood", "a good book")
    np.testing.assert_allclose(one.scores, texts.scores("mood", ["a good book"]), **CLOSE)
    long = text_engine.predict("mood", ["a good book the film dull dull dull"])
    np.testing.assert_allclose(long.scores, texts.scores("mood", ["a good book the film"]), **CLOSE)


def test_many_threads_get_the_answers_that_one_gets(engine: Engine, features: HandMade) -> None:
    questions = [(name, features.inputs(1 + seed % 3, seed)) for seed in range(10) for name in features.names]
    expected = [engine.predict(*question).scores for question in questions]
    fresh = Engine(engine.bundle, mode=engine.mode, weights=engine.weights, threads=1)
    for answers in hammer(lambda question: fresh.predict(*question), questions, threads=8):
        assert not isinstance(answers, Exception), answers
        for answer, scores in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(answer.scores, scores)


def test_a_missing_provider_is_an_error_not_a_fallback(features: HandMade) -> None:
    has = onnxruntime.get_available_providers()
    missing = next(name for name in onnxruntime.get_all_providers() if name not in has)
    with pytest.raises(ConfigError, match=f"{missing}.*not in this ONNX Runtime"):
        load(features.path, providers=[missing, "CPUExecutionProvider"])


def test_all_wrong_options_are_reported_at_once(features: HandMade) -> None:
    wrong: dict[str, Any] = {"mode": "both", "weights": "heavy", "providers": ["NoSuchProvider"]}
    with pytest.raises(ConfigError) as caught:
        load(features.path, **wrong, threads=0, session_bytes=-1)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "mode",
        "weights",
        "session_bytes",
        "providers",
        "threads",
    ]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((9, 7, 1), "wrap it in a list"),
        ((3, 9, 7), r"array\[\.\.\., None\]"),
        ((3, 9, 8), r"\[R, 9, 7, 1\]$"),
    ],
)
def test_what_an_array_lacks_is_told_where_that_can_be_seen(shape: tuple[int, ...], says: str) -> None:
    spec = TensorSpec(name="pixels", dtype="uint8", shape=(None, 9, 7, 1))
    with pytest.raises(InvalidInputError, match=says):
        as_tensor(spec, np.zeros(shape, dtype=np.uint8))

"""What a recipe can ask of its training: validation rows, weights, callbacks, a loop of its own, a compiled model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.recipes import InvalidRecipe, Recipe
from flows.tasks import Classification, OwnTask, Regression
from flows.training.course import Training, training_of, weights_of
from flows.training.dataset import UnusableData, load_dataset
from flows.training.export import export
from flows.training.fit import Fitted, fit
from flows.training.predictor import load_predictor
from flows.training.seen_rows import rows_seen
from flows.user_code import RecipeFailed

RANDOM = np.random.default_rng(3)
NUMBERS = RANDOM.normal(size=(200, 2)).astype(np.float32)
CLASSES = (NUMBERS.sum(axis=1) > 0).astype(np.int64)


def dense(examples: Any, units: int = 2, activation: str | None = "softmax") -> keras.Model:
    return keras.Sequential([keras.Input(examples.shape[1:]), keras.layers.Dense(units, activation=activation)])


BASE = Recipe(name="own", load=lambda: (NUMBERS, CLASSES), build=dense, class_names=("no", "yes"), epochs=2)


def fitted(recipe: Recipe, epochs: int = 2) -> Fitted:
    return fit(recipe, load_dataset(recipe), 1, epochs, lambda epoch, metrics: None)


def test_a_share_of_the_training_rows_validates() -> None:
    """Its metrics stand beside those of training, no held-out row is one of them, and they stay when others come."""
    recipe = replace(BASE, validation=0.25)
    assert {"loss", "val_loss", "val_accuracy"} <= fitted(recipe).history.keys()
    dataset = load_dataset(recipe)
    training = training_of(recipe, dataset, 1, 1, [])
    assert training.validation is not None
    assert len(training.validation) == pytest.approx(0.25 * len(dataset.train), abs=15)
    assert not set(training.train.ids) & set(training.validation.ids)
    more = np.concatenate([RANDOM.normal(size=(50, 2)).astype(np.float32), NUMBERS])
    grown = replace(recipe, load=lambda: (more, (more.sum(axis=1) > 0).astype(np.int64)))
    grown_training = training_of(grown, load_dataset(grown), 1, 1, [])
    assert grown_training.validation is not None
    assert set(training.validation.ids) <= set(grown_training.validation.ids)


def test_rows_of_ones_own_validate() -> None:
    """They are not trained on where they are training rows too, and no held-out row may be among them."""
    dataset = load_dataset(BASE)
    seen = dataset.train.inputs["input"][:20], dataset.train.targets[:20]
    recipe = replace(BASE, validation=lambda: seen)
    training = training_of(recipe, dataset, 1, 1, [])
    assert len(training.train) == len(dataset.train) - 20
    held_out = dataset.test.inputs["input"], dataset.test.targets
    with pytest.raises(UnusableData, match="are held out"):
        training_of(replace(BASE, validation=lambda: held_out), dataset, 1, 1, [])
    with pytest.raises(InvalidRecipe, match="validation share"):
        replace(BASE, validation=1.5)


def test_rows_count_by_their_class_and_by_a_column() -> None:
    """The weights multiply; a class or column that is not there, and a negative weight, are refused."""
    recipe = replace(
        BASE,
        load=lambda: (NUMBERS, CLASSES, {"importance": np.arange(200) % 3}),
        class_weight={"yes": 5.0},
        sample_weight="importance",
    )
    dataset = load_dataset(recipe)
    weights = weights_of(recipe, dataset, dataset.train)
    assert weights is not None
    expected = np.where(dataset.train.targets == 1, 5.0, 1.0) * dataset.train.extras["importance"]
    np.testing.assert_allclose(weights, expected)
    assert fitted(recipe).history["loss"]
    for wrong in ({"class_weight": {"maybe": 1.0}}, {"sample_weight": "nothing"}, {"class_weight": {"no": -1.0}}):
        changed: Any = replace(recipe, **wrong)
        with pytest.raises(UnusableData):
            weights_of(changed, dataset, dataset.train)


def test_callbacks_of_the_recipe_take_part() -> None:
    """Such as the one that stops early."""
    recipe = replace(
        BASE,
        validation=0.2,
        callbacks=lambda: [keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=100, patience=0)],
    )
    assert len(fitted(recipe, epochs=10).history["loss"]) < 10


def test_a_compiled_model_is_trained_as_it_was_compiled() -> None:
    """Its loss, optimizer and metrics stay."""

    def build(examples: Any) -> keras.Model:
        model = dense(examples)
        model.compile(
            keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["sparse_top_k_categorical_accuracy"]
        )
        return model

    found = fitted(replace(BASE, build=build))
    assert isinstance(found.model.optimizer, keras.optimizers.SGD)
    assert "sparse_top_k_categorical_accuracy" in found.history


def test_a_model_that_is_built_by_its_first_rows_is_trained() -> None:
    """A subclass of `keras.Model` needs neither an Input nor a shape."""

    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2, activation="softmax")

        def call(self, rows: Any) -> Any:
            return self.dense(rows)

    assert fitted(replace(BASE, build=lambda examples: Own())).history["loss"]


def test_a_training_loop_of_ones_own() -> None:
    """It gets model, rows and callbacks, and what it returns is the history: Keras's, a dict, or nothing."""
    told: list[int] = []

    def loop(model: keras.Model, training: Training) -> Any:
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model.fit(**training.arguments)

    recipe = replace(BASE, fit=loop)
    found = fit(recipe, load_dataset(recipe), 1, 3, lambda epoch, metrics: told.append(epoch))
    assert told == [1, 2, 3]
    assert len(found.history["loss"]) == 3
    assert fitted(replace(BASE, fit=lambda model, training: {"loss": [1, 0.5]})).history == {"loss": [1.0, 0.5]}
    assert fitted(replace(BASE, fit=lambda model, training: None)).history == {}


def test_a_training_shows_how_far_it_has_come(caplog: pytest.LogCaptureFixture) -> None:
    """Epoch, batch, metrics and the time left, and a few lines where there is no terminal."""
    caplog.set_level("DEBUG", "flows")
    fitted(replace(BASE, batch_size=1), epochs=25)
    shown = [record.message for record in caplog.records]
    batches = [line for line in shown if re.match(r"training epoch \d+ of 25, batch \d+ of \d+, \d+ s left, ", line)]
    assert batches
    assert all("loss" in line and "accuracy" in line for line in batches)
    lines = [line for line in shown if re.match(r"training epoch=\d+/25 (left=\d+ s )?accuracy=", line)]
    assert len(lines) == 5
    assert any("left=" in line for line in lines[:-1])


def fails(*_: Any) -> Any:
    raise KeyError("no such key")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"fit": fails}, "cannot be trained"),
        ({"callbacks": fails}, "callbacks of 'own' cannot be made"),
        ({"validation": fails}, "cannot be loaded"),
        ({"load": fails}, "cannot be loaded"),
        ({"build": fails}, "cannot be built"),
        ({"callbacks": lambda: [keras.callbacks.LambdaCallback(on_epoch_end=fails)]}, "cannot be trained"),
        ({"task": OwnTask(score=fails)}, "score of the task"),
        ({"task": Classification(("no", "yes"), metrics={"mine": fails})}, "metric 'mine'"),
    ],
)
def test_a_bug_in_any_function_of_the_recipe_is_told_with_its_line(where: Mapping[str, Any], told: str) -> None:
    """As the user's own, by file and line."""
    recipe: Recipe = replace(BASE, **where)

    def evaluated() -> None:
        dataset = load_dataset(recipe)
        answers = np.full((len(dataset.test), 2), 0.5)
        fit(recipe, dataset, 1, 1, lambda epoch, metrics: None)
        dataset.task.evaluate(dataset.test.targets, answers)

    if isinstance(where.get("task"), OwnTask):
        recipe = replace(recipe, fit=lambda model, training: None)
    with pytest.raises(RecipeFailed, match=rf"{told}.*KeyError.*{Path(__file__).name}:\d+ in fails"):
        evaluated()


def test_the_rows_that_a_version_has_seen_are_kept_with_it(tmp_path: Path) -> None:
    """All training rows, those to validate by too, and none that is held out."""
    recipe = replace(BASE, validation=0.2)
    dataset = load_dataset(recipe)
    export(fit(recipe, dataset, 1, 1, lambda epoch, metrics: None).model, dataset, "own", tmp_path / "model")
    train, test = rows_seen(tmp_path / "model", dataset.train), rows_seen(tmp_path / "model", dataset.test)
    assert train is not None
    assert test is not None
    assert train.all()
    assert not test.any()


def test_several_inputs_of_any_type_reach_the_model_and_its_clients(tmp_path: Path) -> None:
    """A picture in bytes, a text and a number, by name, in the types of the data; the exported model takes them."""
    pictures: NDArray[Any] = RANDOM.integers(0, 255, (60, 4, 4, 3), np.uint8)
    data = {"picture": pictures, "colour": np.array(["red", "blue"] * 30), "depth": np.arange(60, dtype=np.int64)}

    def build(examples: Mapping[str, NDArray[Any]]) -> keras.Model:
        inputs = {
            "picture": keras.Input((4, 4, 3), dtype="uint8", name="picture"),
            "colour": keras.Input((), dtype="string", name="colour"),
            "depth": keras.Input((), dtype="int64", name="depth"),
        }
        flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs["picture"]))
        word = keras.layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")(inputs["colour"])
        depth = keras.ops.expand_dims(keras.ops.cast(inputs["depth"], "float32"), 1)
        return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()([flat, word, depth])))

    recipe = Recipe(name="mixed", load=lambda: (data, np.arange(60.0)), build=build, task=Regression(("y",)))
    dataset = load_dataset(recipe)
    export(fit(recipe, dataset, 1, 1, lambda epoch, metrics: None).model, dataset, "mixed", tmp_path / "model")
    predict = load_predictor(tmp_path / "model")
    answers = predict.judged(predict(predict.bind(dataset.test.inputs)))
    assert answers.shape == (len(dataset.test), 1)

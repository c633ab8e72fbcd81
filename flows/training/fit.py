"""Fits the model of a recipe, and exports it as a SavedModel with fixed signatures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.data.rows import Inputs, bare
from flows.recipes import Recipe
from flows.training.dataset import Dataset
from flows.user_code import RecipeFailed, of_recipe

log = logging.getLogger(__name__)

Progress = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and its metrics."""

_WARM_UP_BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained Keras model, and per metric its value after each epoch."""

    model: Any
    history: dict[str, list[float]]


def params(recipe: Recipe, seed: int, epochs: int) -> dict[str, int | float]:
    """What a training depends on, beside data and code."""
    return {
        "seed": seed,
        "epochs": epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
    }


def fit(recipe: Recipe, dataset: Dataset, seed: int, epochs: int, progress: Progress) -> Fitted:
    """
    Train the recipe's model; the same seed gives the same model on the same machine.

    Raises:
        RecipeFailed: It cannot be built, or cannot be trained on these rows.
        OutOfMemory: There is not enough memory for it.
    """
    import keras

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            progress(epoch + 1, logs or {})

    keras.utils.set_random_seed(seed)
    with of_recipe(f"The model of {recipe.name!r} cannot be built"):
        model = recipe.build(dataset.train.examples)
    if not isinstance(model, keras.Model):
        given = type(model).__name__
        raise RecipeFailed(f"The build() of {recipe.name!r} returns {given}, and has to return a keras.Model")
    with of_recipe(f"The model of {recipe.name!r} cannot be trained"):
        # Compiling by XLA takes longer than training models of this size.
        model.compile(
            optimizer=keras.optimizers.Adam(recipe.learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
        history = model.fit(
            fed(dataset.train.inputs),
            dataset.train.targets,
            batch_size=recipe.batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=[Report()],
        )
    return Fitted(model, {name: [float(value) for value in values] for name, values in history.history.items()})


def fed(inputs: Inputs) -> Any:
    """What Keras takes for these inputs; strings as tensors, which it does not make of arrays by itself."""
    return bare({name: tf.constant(each) if each.dtype == object else each for name, each in inputs.items()})


def export(model: Any, dataset: Dataset, model_name: str, path: Path) -> None:
    """
    Write `model` as a SavedModel.

    Signature ``serving_default`` takes the inputs by their names, of the data's dtypes and shapes [-1, ...], and gives
    ``output`` float32 [-1, classes], each row summing to 1. Signature ``classify_class`` takes the same and gives the
    likeliest class: ``class_id`` int64 [-1], ``class_name`` string [-1], ``probability`` float32 [-1]. The class names
    are an asset too, one a line.
    """
    names_file = path.with_name(f"{path.name}.assets") / "class_names.txt"
    names_file.parent.mkdir(parents=True, exist_ok=True)
    names_file.write_text("".join(f"{name}\n" for name in dataset.class_names), "utf-8")
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.class_names = tf.saved_model.Asset(str(names_file))
    specs = {name: _spec(name, array) for name, array in dataset.train.inputs.items()}
    class_names = tf.constant(dataset.class_names)

    @tf.function  # type: ignore[untyped-decorator]
    def probabilities(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output": model(bare(inputs), training=False)}

    @tf.function  # type: ignore[untyped-decorator]
    def likeliest(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        output = model(bare(inputs), training=False)
        class_id = tf.argmax(output, axis=-1)
        return {
            "class_id": class_id,
            "class_name": tf.gather(class_names, class_id),
            "probability": tf.reduce_max(output, axis=-1),
        }

    with of_recipe(f"The model of {model_name!r} cannot be exported"):
        signatures = {
            "serving_default": probabilities.get_concrete_function(**specs),
            "classify_class": likeliest.get_concrete_function(**specs),
        }
        tf.saved_model.save(module, str(path), signatures=signatures)
    _write_warm_up(path, model_name, dataset.train.inputs, signatures)
    names_file.unlink()
    names_file.parent.rmdir()
    log.info("model exported model=%s", model_name)


def _spec(name: str, array: NDArray[Any]) -> Any:
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    return tf.TensorSpec([None, *array.shape[1:]], dtype, name=name)


def _write_warm_up(path: Path, model_name: str, inputs: Inputs, signatures: Mapping[str, Any]) -> None:
    """
    Requests that the server answers to itself before anyone else's.

    Source: tensorflow_serving/apis/prediction_log.proto
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    file = path / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature in signatures:
            for size in _WARM_UP_BATCHES:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for name, array in inputs.items():
                    rows = np.resize(array, (size, *array.shape[1:]))
                    dtype = tf.string if array.dtype == object else None
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(rows, dtype))
                predict_log = prediction_log_pb2.PredictLog(request=request)
                writer.write(prediction_log_pb2.PredictionLog(predict_log=predict_log).SerializeToString())

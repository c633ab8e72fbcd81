"""Exports a trained model as a SavedModel with fixed signatures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.data.rows import Inputs, bare
from flows.machine.generated_code import remove_generated_code
from flows.tasks import Classification
from flows.training.dataset import Dataset
from flows.training.predictor import OUTPUT
from flows.training.seen_rows import TRAINING_ROWS
from flows.user_code import of_recipe

log = logging.getLogger(__name__)

_WARM_UP_BATCHES = (1, 32)
_Table = tf.saved_model.experimental.TrackableResource


def export(model: Any, dataset: Dataset, model_name: str, path: Path) -> None:
    """
    Write `model` as a SavedModel.

    Signature ``serving_default`` takes the inputs by their names, of the data's dtypes and shapes [-1, ...], and gives
    ``output``, such as class probabilities float32 [-1, classes]; a model that gives a dict gives its own names. A
    classification has a signature ``classify_class`` too, which takes the same and gives the likeliest class:
    ``class_id`` int64 [-1], ``class_name`` string [-1], ``probability`` float32 [-1]; its class names are an asset, one
    a line.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.tables = [each for each in tf.train.TrackableView(model).descendants() if isinstance(each, _Table)]
    specs = {name: _spec(name, array) for name, array in dataset.train.inputs.items()}
    functions = {"serving_default": _answers(model)}
    with TemporaryDirectory(dir=path.parent) as directory, of_recipe(f"The model of {model_name!r} cannot be exported"):
        if isinstance(dataset.task, Classification):
            functions["classify_class"] = _likeliest_class(model, dataset.task)
            names_file = Path(directory) / "class_names.txt"
            names_file.write_text("".join(f"{name}\n" for name in dataset.class_names), "utf-8")
            module.class_names = tf.saved_model.Asset(str(names_file))
        signatures = {name: function.get_concrete_function(**specs) for name, function in functions.items()}
        tf.saved_model.save(module, str(path), signatures=signatures)
        remove_generated_code()  # TensorFlow has its own function of the signatures converted
    _write_warm_up(path, model_name, dataset.train.inputs, signatures)
    np.save(path / TRAINING_ROWS, dataset.training_ids, allow_pickle=False)
    log.info("model exported model=%s", model_name)


def _answers(model: Any) -> Any:
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def answers(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return _named(model(bare(inputs), training=False))

    return answers


def _likeliest_class(model: Any, task: Classification) -> Any:
    class_names = tf.constant(task.class_names)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def likeliest(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        output = tf.cast(_named(model(bare(inputs), training=False))[OUTPUT], tf.float32)
        if output.shape[-1] == 1:  # one sigmoid
            output = tf.concat([1 - output, output], axis=-1)
        class_id = tf.argmax(output, axis=-1)
        return {
            "class_id": class_id,
            "class_name": tf.gather(class_names, class_id),
            "probability": tf.reduce_max(output, axis=-1),
        }

    return likeliest


def _named(outputs: Any) -> dict[str, Any]:
    """The outputs of a model by name; a lone one is called ``output``."""
    if not isinstance(outputs, Mapping):
        return {OUTPUT: outputs}
    return dict(outputs) if OUTPUT in outputs or len(outputs) > 1 else {OUTPUT: next(iter(outputs.values()))}


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

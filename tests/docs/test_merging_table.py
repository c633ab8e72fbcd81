"""The table of docs/merging.md says what is proven of common Keras layers, as they are exported today."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from flows.recipes.finding import find_recipe
from flows.training.dataset import load_dataset
from flows.training.export import export
from serving.protocol.signature import Signature
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Servable
from tests.serving.inference.together import run_together

pytestmark = pytest.mark.xdist_group("merging-table")

PAGE = Path(__file__).parents[2] / "docs" / "merging.md"
ROWS = re.compile(r"^\| (?P<layers>[^|]+) \| (?P<merges>yes|no)(: `(?P<operation>\w+)`)? \|$", re.MULTILINE)

Built = tuple[Sequence[Any], Any]
"""The inputs of a model, and its output."""


def on(spec: Any, *stack: Callable[[Any], Any]) -> Built:
    output = spec
    for layer in stack:
        output = layer(output)
    return [spec], output


def floats(*shape: int | None) -> Any:
    return keras.Input(shape)


def numbers(*shape: int | None) -> Any:
    return keras.Input(shape, dtype="int64")


def words(*shape: int | None) -> Any:
    return keras.Input(shape, dtype="string")


def string_lookup(**options: Any) -> Any:
    return layers.StringLookup(vocabulary=["a", "b"], **options)


def vectorised(**options: Any) -> Any:
    return layers.TextVectorization(vocabulary=["a", "b"], **options)


def crossed() -> Built:
    inputs = [words(1), numbers(1)]
    return inputs, layers.HashedCrossing(8, output_mode="one_hot")(tuple(inputs))


def attended(**options: Any) -> Built:
    sequence = floats(None, 8)
    found = layers.MultiHeadAttention(2, 4)(sequence, sequence, **options)
    return [sequence], layers.LayerNormalization()(sequence + found)


def masked_attention() -> Built:
    sequence = numbers(6)
    embedded = layers.Embedding(10, 8, mask_zero=True)(sequence)
    return [sequence], layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(embedded, embedded))


def dotted() -> Built:
    one, other = floats(4), floats(4)
    return [one, other], layers.Concatenate()([layers.Multiply()([one, other]), layers.Dot(1)([one, other])])


def tabular() -> Built:
    """Columns of three kinds, as most models of tables have them."""
    inputs = [floats(4), words(1), numbers(1)]
    parts = [
        layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)(inputs[0]),
        string_lookup(output_mode="one_hot")(inputs[1]),
        layers.Flatten()(layers.Embedding(8, 2)(layers.Hashing(8)(inputs[2]))),
    ]
    return inputs, layers.Dense(2, "softmax")(layers.Concatenate()(parts))


PICTURE = (8, 8, 3)
LINES_OF_A_MODEL = 8
LAYERS: dict[str, Callable[[], Built]] = {
    "Dense, any activation": lambda: on(floats(4), layers.Dense(8, "gelu"), layers.Dense(3, "softmax")),
    "Dense over sequences, TimeDistributed, EinsumDense": lambda: on(
        floats(5, 4),
        layers.Dense(8),
        layers.TimeDistributed(layers.Dense(3)),
        layers.EinsumDense("abc,cd->abd", output_shape=(None, 6)),
    ),
    "Dense over sequences of any length": lambda: on(floats(None, 4), layers.Dense(8)),
    "TimeDistributed over sequences of any length": lambda: on(
        floats(None, 4), layers.TimeDistributed(layers.Dense(3))
    ),
    "Normalization, Rescaling": lambda: on(
        floats(4), layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4), layers.Rescaling(0.5)
    ),
    "BatchNormalization, LayerNormalization, RMSNormalization, UnitNormalization": lambda: on(
        floats(4),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
    ),
    "GroupNormalization": lambda: on(floats(4, 4, 8), layers.GroupNormalization(4)),
    "Dropout, GaussianNoise": lambda: on(floats(4), layers.Dropout(0.5), layers.GaussianNoise(0.1), layers.Dense(2)),
    "PReLU, LeakyReLU, ELU, Softmax": lambda: on(
        floats(4), layers.PReLU(), layers.LeakyReLU(), layers.ELU(), layers.Softmax()
    ),
    "StringLookup, IntegerLookup": lambda: on(words(3), string_lookup(), layers.IntegerLookup(vocabulary=[1, 2])),
    "StringLookup with several hash buckets": lambda: on(words(1), string_lookup(num_oov_indices=3)),
    "StringLookup, one-hot": lambda: on(words(1), string_lookup(output_mode="one_hot")),
    "StringLookup, multi-hot": lambda: on(words(3), string_lookup(output_mode="multi_hot")),
    "StringLookup, counts": lambda: on(words(3), string_lookup(output_mode="count")),
    "StringLookup, `num_oov_indices=0`": lambda: on(words(1), string_lookup(num_oov_indices=0)),
    "CategoryEncoding, one-hot": lambda: on(numbers(1), layers.CategoryEncoding(5, "one_hot")),
    "CategoryEncoding, multi-hot": lambda: on(numbers(3), layers.CategoryEncoding(5, "multi_hot")),
    "CategoryEncoding, counts": lambda: on(numbers(3), layers.CategoryEncoding(5, "count")),
    "Hashing": lambda: on(words(1), layers.Hashing(7, salt=[1, 2])),
    "Discretization": lambda: on(floats(1), layers.Discretization([0.1, 0.5], output_mode="one_hot")),
    "HashedCrossing": crossed,
    "TextVectorization": lambda: on(words(1), vectorised()),
    "TextVectorization, `output_sequence_length=4`": lambda: on(words(1), vectorised(output_sequence_length=4)),
    "TextVectorization, multi-hot": lambda: on(words(1), vectorised(output_mode="multi_hot")),
    "columns of a table: Normalization, StringLookup, Hashing, Embedding, Concatenate": tabular,
    "Conv2D, SeparableConv2D, DepthwiseConv2D, pooling, Flatten": lambda: on(
        floats(*PICTURE),
        layers.Conv2D(4, 3, padding="same", strides=2),
        layers.SeparableConv2D(4, 3, padding="same"),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2),
        layers.Flatten(),
    ),
    "Conv1D, Conv3D, global pooling": lambda: on(
        floats(8, 8, 8, 3),
        layers.Conv3D(2, 3),
        layers.GlobalAveragePooling3D(),
        layers.Reshape((2, 1)),
        layers.Conv1D(4, 2),
        layers.GlobalMaxPooling1D(),
    ),
    "Conv1D, Conv2D, dilated": lambda: on(
        floats(*PICTURE),
        layers.Conv2D(4, 3, padding="same", dilation_rate=2),
        layers.Reshape((64, 4)),
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
    ),
    "Conv2DTranspose": lambda: on(floats(*PICTURE), layers.Conv2DTranspose(4, 3, strides=2)),
    "Resizing, CenterCrop, ZeroPadding2D, Cropping2D, UpSampling2D": lambda: on(
        floats(*PICTURE),
        layers.Resizing(6, 6),
        layers.CenterCrop(4, 4),
        layers.ZeroPadding2D(),
        layers.Cropping2D(1),
        layers.UpSampling2D(2),
    ),
    "Embedding with pooling": lambda: on(
        numbers(None), layers.Embedding(10, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)
    ),
    "Embedding with a mask, and pooling": lambda: on(
        numbers(6), layers.Embedding(10, 4, mask_zero=True), layers.GlobalAveragePooling1D()
    ),
    "LSTM, GRU, SimpleRNN": lambda: on(
        floats(6, 3),
        layers.LSTM(4, return_sequences=True),
        layers.GRU(4, return_sequences=True),
        layers.SimpleRNN(4),
    ),
    "LSTM over sequences of any length": lambda: on(floats(None, 3), layers.LSTM(4, return_sequences=True)),
    "LSTM with a mask": lambda: on(numbers(6), layers.Embedding(10, 3, mask_zero=True), layers.LSTM(4)),
    "Bidirectional": lambda: on(floats(6, 3), layers.Bidirectional(layers.LSTM(4))),
    "ConvLSTM1D": lambda: on(floats(4, 6, 2), layers.ConvLSTM1D(2, 3)),
    "MultiHeadAttention, with LayerNormalization": attended,
    "MultiHeadAttention, causal": lambda: attended(use_causal_mask=True),
    "MultiHeadAttention with a mask": masked_attention,
    "Reshape, Permute, RepeatVector": lambda: on(
        floats(12), layers.Reshape((3, 4)), layers.Permute((2, 1)), layers.Flatten(), layers.RepeatVector(2)
    ),
    "Concatenate, Multiply, Dot": dotted,
    "a softmax, mean or sort over the batch": lambda: on(
        floats(4), layers.Lambda(lambda rows: tf.nn.softmax(rows, axis=0))
    ),
    "`tf.map_fn`, `tf.scan`, `tf.vectorized_map` over the batch": lambda: on(
        floats(4), layers.Lambda(lambda rows: tf.map_fn(lambda row: row * 2.0, rows))
    ),
}


Exported = Sequence[tuple[Servable, Signature]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """
    For each line of the table the signature of a SavedModel by Keras' own export.

    A few lines are one SavedModel: each takes a while to be written, and each signature goes through its whole graph.
    """
    found: list[tuple[Servable, Signature]] = []
    builds = list(LAYERS.values())
    for first in range(0, len(builds), LINES_OF_A_MODEL):
        lines = builds[first : first + LINES_OF_A_MODEL]
        servable = write_and_load(lines, tmp_path_factory.mktemp("layers") / "saved_model")
        found += [(servable, servable.signatures[f"line_{number}"]) for number in range(len(lines))]
    return found


def write_and_load(builds: Sequence[Callable[[], Built]], path: Path) -> Servable:
    archive = keras.export.ExportArchive()
    for number, build in enumerate(builds):
        inputs, output = build()
        model = keras.Model(inputs, output, name=f"model_{number}")
        archive.track(model)
        specs = [tf.TensorSpec(each.shape, each.dtype) for each in inputs]
        archive.add_endpoint(f"line_{number}", _called(model), input_signature=specs)
    archive.write_out(str(path), verbose=False)
    return load("layers", 1, path, LoadOptions())


def _called(model: Any) -> Callable[..., Any]:
    return lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)


def documented() -> dict[str, str | None]:
    """What the page says: nothing where a layer merges, else the operation that stands in the way."""
    return {row["layers"]: row["operation"] for row in ROWS.finditer(PAGE.read_text("utf-8"))}


def test_the_table_is_what_is_proven(exported: Exported) -> None:
    """Line by line, the page says whether requests merge and which operation stands in the way."""
    found = [servable.obstacle(signature) for servable, signature in exported]
    assert documented() == {name: each and each.operation for name, each in zip(LAYERS, found, strict=True)}


def request(servable: Servable, name: str, size: int) -> dict[str, Any]:
    """Random rows for a signature; what is of any length is of length 5."""
    random = np.random.default_rng(size)
    found = {}
    for alias, info in servable.signatures[name].inputs.items():
        shape = [size, *(5 if each < 0 else each for each in (info.shape or ())[1:])]
        dtype = tf.as_dtype(info.dtype)
        if dtype == tf.string:
            found[alias] = random.choice(np.array([b"a", b"b"], object), shape)
        else:
            numbers = random.integers(0, 5, shape) if dtype.is_integer else random.standard_normal(shape)
            found[alias] = numbers.astype(dtype.as_numpy_dtype)
    return found


@pytest.mark.parametrize("number", range(len(LAYERS)), ids=list(LAYERS))
def test_layers_answer_the_same_alone_and_merged(number: int, exported: Exported) -> None:
    """Of requests of several sizes that come together, each gets what it gets alone, whether they are merged or not."""
    servable, signature = exported[number]
    requests = [servable.bind(signature, request(servable, signature.name, size)) for size in (1, 3, 2)]
    results, runs = run_together(requests)
    assert runs == (1 if servable.obstacle(signature) is None else 3)
    for (call, arrays), result in zip(requests, results, strict=True):
        assert isinstance(result, list), result
        for found, expected in zip(result, call.run(arrays), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def seconds_to_prove(servable: Servable, name: str) -> float:
    """The processor time of the quickest of three proofs."""
    signature = servable.signatures[name]
    shapes = {info.name: info.shape for info in signature.inputs.values()}
    taken = []
    for _ in range(3):
        started = time.thread_time()
        servable._analysis.obstacles(shapes, [info.name for info in signature.outputs.values()])
        taken.append(time.thread_time() - started)
    return min(taken)


def test_the_proof_is_quick(exported: Exported) -> None:
    """It holds up no swap, whatever the layers."""
    assert max(seconds_to_prove(servable, signature.name) for servable, signature in exported) < 0.02


@pytest.mark.parametrize("name", ["iris", "digits"])
def test_what_is_trained_here_merges(name: str, tmp_path: Path) -> None:
    """Both signatures of what a training exports, which the speed of the server depends on."""
    dataset = load_dataset(find_recipe(name))
    model = find_recipe(name).build(dataset.train.examples)
    export(model, dataset, name, tmp_path / "saved_model")
    servable = load(name, 1, tmp_path / "saved_model", LoadOptions())
    obstacles = {each: servable.obstacle(servable.signatures[each]) for each in ("serving_default", "classify_class")}
    assert obstacles == {"serving_default": None, "classify_class": None}
    rows = np.ascontiguousarray(dataset.test.examples[:1])
    call, arrays = servable.bind(servable.signatures["serving_default"], {"input": rows})
    assert call.batch(arrays).merges
    assert seconds_to_prove(servable, "serving_default") < 0.005
    servable.close()

"""``hotswap predict``: rows are held against the signature, and a mistake says what is wrong with which of them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cli import run
from flows.settings import Settings
from serving.repository.stamp import GoldenRows, Stamp
from serving.server import Server
from serving.settings import ServerSettings

FEATURES = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]


@pytest.fixture(scope="module")
def many_signatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel that takes flowers, pairs, pictures, texts, whole numbers, flags, rows of any length, a scalar."""
    import tensorflow as tf

    def spec(shape: list[int | None], dtype: Any, name: str) -> Any:
        return tf.TensorSpec(shape, dtype, name=name)

    def signature(function: Any, *specs: Any) -> Any:
        return tf.function(function, input_signature=list(specs))

    module = tf.Module()
    names = tf.constant(["setosa", "versicolor"])
    flowers = spec([None, 4], tf.float32, "input")
    signatures = {
        "serving_default": signature(lambda input: {"output": tf.reduce_sum(input, 1, keepdims=True)}, flowers),
        "classify_class": signature(
            lambda input: {
                "class_id": tf.cast(input[:, 0] > 1, tf.int64),
                "class_name": tf.gather(names, tf.cast(input[:, 0] > 1, tf.int32)),
                "probability": tf.ones_like(input[:, 0]),
            },
            flowers,
        ),
        "pair": signature(
            lambda a, b: {"both": tf.strings.join([tf.as_string(a), b])},
            spec([None], tf.int32, "a"),
            spec([None], tf.string, "b"),
        ),
        "picture": signature(
            lambda pixels: {"sum": tf.reduce_sum(pixels, [1, 2])}, spec([None, 2, 2], tf.float32, "pixels")
        ),
        "text": signature(lambda words: {"length": tf.strings.length(words)}, spec([None], tf.string, "words")),
        "whole": signature(lambda x: {"twice": x * 2}, spec([None, 2], tf.uint8, "x")),
        "flags": signature(lambda x: {"not": tf.logical_not(x)}, spec([None, 2], tf.bool, "x")),
        "any": signature(lambda x: {"sum": tf.reduce_sum(x, 1)}, spec([None, None], tf.float32, "x")),
        "scalar": signature(lambda x: {"half": x / 2}, spec([], tf.float64, "x")),
    }
    path = tmp_path_factory.mktemp("many") / "model"
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.fixture(scope="module")
def settings(many_signatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A running server of that model, published with names and golden rows."""
    root = tmp_path_factory.mktemp("flowers")
    path = root / "models" / "flowers" / "1"
    shutil.copytree(many_signatures, path)
    example = np.array([[5.0, 3.0, 1.5, 0.25]], np.float32)
    Stamp(features=tuple(FEATURES), golden=GoldenRows({"input": example}, {"output": example})).write(path)
    with Server(ServerSettings(model_name="flowers", model_base_path=str(path.parent))) as server:
        rest_port, grpc_port = server.rest_port, server.grpc_port
        yield Settings(home=root / "home", models_repo=root / "models", rest_port=rest_port, grpc_port=grpc_port)


@pytest.fixture(params=["rest", "grpc"])
def ask(
    request: pytest.FixtureRequest,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Ask the server over both protocols: exit code, standard output, standard error."""
    for field in ("home", "models_repo", "rest_port", "grpc_port"):
        monkeypatch.setenv(f"HOTSWAP_{field.upper()}", str(getattr(settings, field)))
    protocol = ["--grpc"] if request.param == "grpc" else []

    def answered(*arguments: str, stdin: str = "", signature: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        chosen = ["--signature", signature] if signature else []
        code = run(["predict", "flowers", *chosen, *protocol, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return answered


def test_single_values_are_one_row_and_the_class_is_named(ask: Any) -> None:
    """As many single values as a row has are a row; the answer names the class where the model can."""
    for arguments in (["5", "3", "1.5", "-0.5"], ["5,3,1.5,-0.5"], ["5,", "3,", "1.5,", "-0.5"], ["5, 3, 1.5, -0.5"]):
        code, out, _ = ask(*arguments)
        assert (code, out) == (0, "flowers version 1\n  class: versicolor 1\n  output: 9\n")
    code, out, _ = ask("5,3,1.5,-0.5", "0,0,0,1", "--json")
    assert code == 0
    assert json.loads(out) == {
        "model": "flowers",
        "version": 1,
        "outputs": {"output": [[9.0], [1.0]]},
        "classes": [{"class": "versicolor", "probability": 1.0}, {"class": "setosa", "probability": 1.0}],
    }


@pytest.mark.parametrize(
    ("arguments", "stdin", "signature", "reported"),
    [
        (["5.1", "3.5", "1.4"], "", "", ["3 single values", "petal_width_cm", "5,3,1.5,0.25"]),
        (["1", "2", "3", "4", "5"], "", "", ["5 single values", "4 values"]),
        (["1,2,3"], "", "", ["Row 1 has 3 values", "4 values (sepal_length_cm,", "5,3,1.5,0.25"]),
        (["1,2,3,4", "1,2,3,4,5"], "", "", ["Row 2 has 5 values"]),
        (["7"], "", "", ["Row 1 has 1 value,"]),
        (["1,2,nan,4"], "", "", ["Row 1, petal_length_cm", "nan", "finite"]),
        (["1,2,3,4", "1,2,3,1e39"], "", "", ["Row 2, petal_width_cm", "finite"]),
        (["1,2,3,inf"], "", "", ["petal_width_cm", "inf"]),
        (["1,2,,4"], "", "", ["value 3", "no number"]),
        (["a,b,c,d"], "", "", ["Row 1, sepal_length_cm", "'a' is no number"]),
        (["1_0,2,3,4"], "", "", ["'1_0' is no number"]),
        (["-"], "[[1, 2, 3]]", "", ["3 values", "4 values (sepal_length_cm,"]),
        (["-"], "[[1, 2, NaN, 4]]", "", ["Row 1, petal_length_cm"]),
        (["-"], "[[1, 2, null, 4]]", "", ["float32 [-1, 4]"]),
        (["-"], '[["a", "b", "c", "d"]]', "", ["float32 [-1, 4]"]),
        (["-"], "[[1, 2, 3, 4], [1, 2]]", "", ["not equally long"]),
        (["-"], "[]", "", ["no rows"]),
        (["-"], "{", "", ["no JSON", "[[5, 3, 1.5, 0.25]]"]),
        (["-"], '{"flower": [[1, 2, 3, 4]]}', "", ["inputs input", "not flower"]),
        (["1", "x"], "", "pair", ["inputs a, b", "predict flowers -"]),
        (["-"], '[{"a": 1}]', "pair", ["Row 1 has a", "a, b"]),
        (["-"], "[1, 2]", "pair", ["several inputs", '"b": string [-1]']),
        (["-"], '{"a": [1.5], "b": ["x"]}', "pair", ["'a' is int32 [-1]"]),
        (["-"], '{"a": [3000000000], "b": ["x"]}', "pair", ["3000000000 is beyond int32"]),
        (["-"], '{"a": [1], "b": [2]}', "pair", ["'b' takes strings", "2 is none"]),
        (["1,2,3,4"], "", "picture", ["float32 [-1, 2, 2]", "predict flowers -"]),
        (["-"], "[[1, 2, 3, 4]]", "picture", ["'pixels' is float32 [-1, 2, 2]", "not [1, 4]"]),
        (["1.5,2"], "", "whole", ["'1.5' is no whole number"]),
        (["1,300"], "", "whole", ["300 is beyond uint8"]),
        (["1,2,3"], "", "whole", ["2 values: write a row as 1,2"]),
        (["1,-1"], "", "whole", ["-1 is beyond uint8"]),
        (["yes,no"], "", "flags", ["'yes' is neither true nor false"]),
        (["1", "2", "3"], "", "any", ["3 single values", "any number of values"]),
        (["1,2", "3"], "", "any", ["Row 2 has 1 value, row 1 2"]),
        (["1", "2"], "", "scalar", ["'x' is float64 []"]),
        (["1,2,3,4"], "", "nonsense", ["no signature 'nonsense'", "picture"]),
    ],
)
def test_rows_that_do_not_fit_are_reported_in_one_sentence(
    arguments: list[str], stdin: str, signature: str, reported: list[str], ask: Any
) -> None:
    """Exit code 1 and one line that names row, feature and the right form; nothing of TensorFlow's own words."""
    code, out, err = ask(*arguments, stdin=stdin, signature=signature)
    assert (code, out) == (1, "")
    assert err.startswith("hotswap: ")
    assert err.count("\n") == 1
    for words in reported:
        assert words in err
    assert "ndarray" not in err


@pytest.mark.parametrize(
    ("arguments", "stdin", "signature", "outputs"),
    [
        (["-"], "[5, 3, 1.5, -0.5]", "", {"output": [[9.0]]}),
        (["-"], '{"instances": [[5, 3, 1.5, -0.5]]}', "", {"output": [[9.0]]}),
        (["-"], '[{"input": [5, 3, 1.5, -0.5]}]', "", {"output": [[9.0]]}),
        (["-"], '{"a": [1, 2], "b": ["x", "y"]}', "pair", {"both": ["1x", "2y"]}),
        (["-"], '[{"a": 1, "b": "x"}, {"a": 2, "b": {"b64": "eQ=="}}]', "pair", {"both": ["1x", "2y"]}),
        (["-"], '{"a": 1, "b": "x"}', "pair", {"both": ["1x"]}),
        (["-"], "[[[1, 2], [3, 4]]]", "picture", {"sum": [10.0]}),
        (["-"], "[[1, 2], [3, 4]]", "picture", {"sum": [10.0]}),
        (["one, two", "three"], "", "text", {"length": [8, 5]}),
        (["1,2", "3,4"], "", "whole", {"twice": [[2, 4], [6, 8]]}),
        (["true", "FALSE"], "", "flags", {"not": [[False, True]]}),
        (["1,2,3", "-1,-2,-3"], "", "any", {"sum": [6.0, -6.0]}),
        (["3"], "", "scalar", {"half": 1.5}),
        (["-"], "3", "scalar", {"half": 1.5}),
    ],
)
def test_every_kind_of_input_can_be_asked(
    arguments: list[str], stdin: str, signature: str, outputs: dict[str, Any], ask: Any
) -> None:
    """Rows, one row, named inputs, pictures, texts, whole numbers, flags and scalars get the same answer over both."""
    code, out, err = ask(*arguments, "--json", stdin=stdin, signature=signature)
    assert (code, err) == (0, "")
    assert json.loads(out)["outputs"] == outputs


def test_without_the_repository_values_are_counted(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the version was not published from here, the signature alone says how long a row is."""
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(tmp_path / "elsewhere"))
    code, _, err = ask("1,2,nan,4")
    assert (code, "Row 1, value 3: nan" in err) == (1, True)
    assert ask("5", "3", "1.5", "-0.5")[0] == 0


def test_a_row_is_written_by_its_features(ask: Any) -> None:
    """Every feature has to be there where the model takes no missing values."""
    code, output, _ = ask("petal_width_cm=0.25", "sepal_length_cm=5", "sepal_width_cm=3", "petal_length_cm=1.5")
    assert (code, "9.75" in output) == (0, True)
    code, _, errors = ask("sepal_length_cm=5")
    assert (code, "needs a value for sepal_width_cm" in errors.replace("\n", " ")) == (1, True)

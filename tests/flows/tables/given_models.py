"""SavedModels that come without a recipe, and tables of rows that they have not been trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_ROWS = 300


def numbers_model(directory: Path) -> Path:
    """A plain Keras export of a linear regression of three numbers, of names that Keras has chosen."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[1.0], [2.0], [-1.0]]), np.zeros(1)])
    model.export(directory / "numbers", verbose=False)
    return directory / "numbers"


def numbers_table(directory: Path) -> Path:
    """Rows with the target ``y`` of `numbers_model`, and some noise."""
    import pandas as pd

    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(_ROWS, 3)), columns=["a", "b", "c"])
    frame["y"] = frame @ [1, 2, -1] + random.normal(scale=0.2, size=_ROWS)
    frame.to_csv(directory / "numbers.csv", index=False)
    return directory / "numbers.csv"


def churn_model(directory: Path) -> Path:
    """A plain Keras export of one sigmoid, from a number and a word that have names; age and plan ``pro`` decide."""
    import keras

    age, plan = keras.Input((), name="age"), keras.Input((), dtype="string", name="plan")
    lookup = keras.layers.StringLookup(vocabulary=["basic", "pro"], output_mode="one_hot")
    joined = keras.layers.Concatenate()([keras.layers.Reshape((1,))(age), lookup(plan)])
    answer = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model({"age": age, "plan": plan}, answer(joined))
    answer.set_weights([np.array([[3.0], [0.0], [0.0], [6.0]]), np.array([-3.0])])
    model.export(directory / "churn", verbose=False)
    return directory / "churn"


def churn_table(directory: Path) -> Path:
    """Rows with the target ``churned``, words, and a column that `churn_model` does not take."""
    import pandas as pd

    random = np.random.default_rng(2)
    age, plan = random.normal(size=_ROWS), random.choice(["basic", "pro", ""], _ROWS)
    churned = age + 2 * (plan == "pro") + random.normal(scale=0.3, size=_ROWS) > 1
    frame = pd.DataFrame({"id": range(_ROWS), "plan": plan, "age": age, "churned": np.where(churned, "yes", "no")})
    frame.to_csv(directory / "churn.csv", index=False)
    return directory / "churn.csv"


def forgetful_model(directory: Path) -> Path:
    """A SavedModel that reads a variable which its files do not have, so that it loads and answers nothing."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="rows")])  # type: ignore[untyped-decorator]
    def answer(rows: Any) -> dict[str, Any]:
        lost = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[3, 1], shared_name="lost")
        return {"answer": rows @ tf.raw_ops.ReadVariableOp(resource=lost, dtype=tf.float32)}

    tf.saved_model.save(tf.Module(), str(directory / "forgetful"), signatures={"serving_default": answer})
    return directory / "forgetful"

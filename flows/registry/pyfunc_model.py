"""
The code by which MLflow runs a registered version.

MLflow copies this file into each registered model and runs it there, so it imports nothing of hotswap. It is the one
module beside `registry` that knows MLflow.
"""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class SavedModelPredictor(PythonModel):  # type: ignore[misc]
    """Answers from the very SavedModel that is published."""

    def load_context(self, context: PythonModelContext) -> None:
        import tensorflow as tf

        self._loaded = tf.saved_model.load(context.artifacts["saved_model"])
        self._serve = self._loaded.signatures["serving_default"]

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """
        The only output as an array [rows, ...], or a dict of all of them.

        Args:
            context: Of MLflow.
            model_input: Rows of numbers, a data frame with a column per input, or arrays by input.
            params: Not used.
        """
        import tensorflow as tf

        specs = self._serve.structured_input_signature[1]
        tensors = {}
        for name, spec in specs.items():
            only = len(specs) == 1 and (not hasattr(model_input, "keys") or name not in model_input)
            values = model_input if only else model_input[name]
            if isinstance(values, (pd.DataFrame, pd.Series)):
                values = values.to_numpy()
            if spec.dtype == tf.string:
                values = np.where(pd.isna(values), "", values).astype(str)
            tensor = tf.constant(np.asarray(values, None if spec.dtype == tf.string else spec.dtype.as_numpy_dtype))
            fits = spec.shape.is_compatible_with(tensor.shape)
            tensors[name] = tensor if fits else tf.reshape(tensor, [-1 if d is None else d for d in spec.shape])
        outputs = {name: tensor.numpy() for name, tensor in self._serve(**tensors).items()}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))


mlflow.models.set_model(SavedModelPredictor())

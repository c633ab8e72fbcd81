"""
The code by which MLflow runs a registered version.

MLflow copies this file into each registered model and runs it there, so it imports nothing of hotswap. It is the one
module beside `registry` that knows MLflow.
"""

from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray


class SavedModelPredictor(PythonModel):  # type: ignore[misc]
    """Answers from the very SavedModel that is published."""

    def load_context(self, context: PythonModelContext) -> None:
        import tensorflow as tf

        self._loaded = tf.saved_model.load(context.artifacts["saved_model"])
        self._serve = self._loaded.signatures["serving_default"]

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Class probabilities float32 [rows, classes] for rows of raw features, in the order of training."""
        import tensorflow as tf

        rows = tf.constant(np.asarray(model_input, np.float32))
        probabilities: NDArray[np.float32] = self._serve(input=rows)["output"].numpy()
        return probabilities


mlflow.models.set_model(SavedModelPredictor())

"""The MLflow model of a published version, as code: MLflow runs this file when it loads the model.

Input: a table with the column `clip`, paths of video files. Output: see
`erv.register.serving.Predictor.predict`.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from erv.register.serving import COLUMNS, Predictor


class EmotionModel(PythonModel):
    """Loads the bundle once and answers tables of clips."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads policy and verifier."""
        self._predictor = Predictor(context.artifacts["bundle"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per clip."""
        rows = self._predictor.predict([str(path) for path in model_input["clip"]])
        return pd.DataFrame(rows, columns=list(COLUMNS))


mlflow.models.set_model(EmotionModel())

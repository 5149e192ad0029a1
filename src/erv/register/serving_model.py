"""The MLflow model of a published version, as code: MLflow runs this file when it loads the model.

Input: a table with the column `clip`, paths below the folder in `ERV_SERVE_ROOT`. Output: see
`erv.register.serving.Predictor.predict`. docs/serving.md says how to serve it.
"""

from __future__ import annotations

import logging
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from erv.register.serving import COLUMNS, Predictor
from erv.register.serving_clips import ClipError, served_folder
from erv.register.serving_guard import (
    Exchange,
    current_exchange,
    guard_scoring_server,
    in_scoring_server,
)

logger = logging.getLogger(__name__)


class EmotionModel(PythonModel):
    """Loads the bundle once and answers tables of clips."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads policy and verifier; in mlflow's scoring server, puts the guard in front of it."""
        root = served_folder()
        if in_scoring_server():
            guard_scoring_server()
        self._predictor = Predictor(context.artifacts["bundle"], root)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per clip.

        Raises:
            ClipError: a clip can't be answered; a sentence for the client.
        """
        exchange = current_exchange()
        if exchange is None and in_scoring_server():
            raise ClipError("this server runs without its guard; see docs/serving.md")
        exchange = exchange or Exchange()
        exchange.asked = True
        try:
            rows = self._predictor.predict(list(model_input["clip"]))
        except ClipError as error:
            exchange.refusal = str(error)
            raise
        except Exception:
            exchange.failed = True
            logger.exception("the model failed")
            raise
        return pd.DataFrame(rows, columns=list(COLUMNS))


mlflow.models.set_model(EmotionModel())

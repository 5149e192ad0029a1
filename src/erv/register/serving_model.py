"""The MLflow model of a published version, as code: MLflow runs this file when it loads the model.

Input: a table with the column `clip` (paths below what `ERV_SERVE_ROOT` names, or URIs), `content` (bytes, or
base64 text), or both, and what a question may need, `dataset` and `subtitle`. Output: see
`erv.answering.predictor.Predictor.predict`. docs/serving.md says how to serve it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from erv.answering.clips import INPUTS, MAX_CLIPS, ClipError, ClipInput, served_clips
from erv.answering.predictor import COLUMNS, Predictor
from erv.register.served_version import say_what_is_served
from erv.register.serving_guard import (
    NO_TABLE,
    Exchange,
    current_exchange,
    guard_scoring_server,
    in_scoring_server,
)

logger = logging.getLogger(__name__)


class EmotionModel(PythonModel):
    """Loads the bundle once and answers tables of clips."""

    def load_context(self, context: PythonModelContext) -> None:
        """Opens the bundle; in mlflow's scoring server, also loads it and puts the guard in front.

        Elsewhere it is loaded with the first clip: whoever only looks at the model needs no memory for it.
        """
        self._predictor = Predictor(context.artifacts["bundle"], served_clips())
        if in_scoring_server():
            guard_scoring_server()
            self._predictor.load()
            bundle = Path(context.artifacts["bundle"])
            say_what_is_served(bundle.parent.parent)  # MLflow has it in `artifacts`

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per clip, with the input's index; one that can't be answered has a sentence in `error`.

        Raises:
            ClipError: the table can't be answered; a sentence for the client.
        """
        exchange = current_exchange()
        if exchange is None and in_scoring_server():
            raise ClipError("this server runs without its guard; see docs/serving.md")
        exchange = exchange or Exchange()
        exchange.asked = True
        try:
            asked = _asked(model_input)
            if in_scoring_server() and len(asked) > MAX_CLIPS:
                raise ClipError(
                    f"the request has {len(asked)} clips, at most {MAX_CLIPS} are answered at once"
                )
            rows = self._predictor.predict(asked)
        except ClipError as error:
            exchange.refusal = str(error)
            raise
        except Exception:
            exchange.failed = True
            logger.exception("the model failed")
            raise
        # Not as numbers: what is missing would be NaN, which is no JSON.
        return pd.DataFrame(rows, index=model_input.index, columns=list(COLUMNS), dtype=object)


def _asked(table: pd.DataFrame) -> list[ClipInput]:
    if "clip" not in table and "content" not in table:
        raise ClipError(NO_TABLE)
    cells = [list(table[name]) if name in table else [None] * len(table) for name in INPUTS]
    return [ClipInput(*map(_given, row)) for row in zip(*cells, strict=True)]


def _given(value: Any) -> Any:
    """A cell, None if it is empty: what is missing from a row is NaN, NaT or NA."""
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


mlflow.models.set_model(EmotionModel())

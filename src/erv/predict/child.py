"""Answers for another process, with the code of a version: run by its path, never imported.

Usage: python -P child.py MODEL. Reads a JSON object of columns per line, writes a JSON list of rows per line.
`PYTHONPATH` begins with the code of the version, so that it answers and not the erv that is installed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Loads the model and answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import mlflow
    import pandas as pd

    import erv

    if not Path(str(erv.__file__)).is_relative_to(folder):
        sys.exit("the code of the version was not loaded")
    model = mlflow.pyfunc.load_model(str(folder))
    for line in sys.stdin:
        table = model.predict(pd.DataFrame(json.loads(line), dtype=object))
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        answers.write(json.dumps(rows) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

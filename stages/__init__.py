"""The stages of `dvc.yaml`.

`dvc exp run --queue` and `--temp` run a copy of the repository, in which the installed `erv` still is that of
the original, as it has become since. The copy's own must run: it is what the copy's results are tied to.
"""

import importlib.util
import os
import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "src"


def _import_from_here() -> None:
    found = importlib.util.find_spec("erv")
    if found is not None and found.origin is not None and _SOURCE in Path(found.origin).resolve().parents:
        return
    sys.path.insert(0, str(_SOURCE))
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_SOURCE), others] if others else [str(_SOURCE)])


if "erv" not in sys.modules and (_SOURCE / "erv").is_dir():
    _import_from_here()

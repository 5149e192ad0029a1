"""The last check before a flow works: whether its code is that of the folder it works in.

A worker is started in one clone with the environment of that clone. Started otherwise, by hand or with the
environment of another clone, it would run one code base on the data of another.
"""

from __future__ import annotations

from pathlib import Path

from erv.environment import load_environment
from erv.stack.own_code import require_own_code


def refuse_foreign_code() -> None:
    """Ends a flow that is run with the code of another clone.

    Raises:
        StackError: `erv` or `flows` is imported from elsewhere.
    """
    require_own_code(load_environment().workspace, flows=Path(__file__).parent)

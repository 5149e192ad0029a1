"""How a flow that ran in this process ended: a sentence, and the exit code of its command."""

from __future__ import annotations

from typing import Any

from erv.errors import ErvError, ExitCode


def ending(state: Any) -> tuple[str, ExitCode]:
    """What to tell of a flow that isn't completed, and its exit code of `erv.errors.EXIT_CODES`.

    A fault has the same code whether it was found before the flow began or within it.

    Args:
        state: in which the flow ended; one of `flows.workspace` carries its error.
    """
    sentence = state.message or f"the flow ended as {state.name}"
    if state.is_cancelled():
        return sentence, ExitCode.CANCELLED
    error = getattr(state.data, "result", state.data)  # Prefect wraps it as the result of the flow
    return sentence, error.exit_code if isinstance(error, ErvError) else ExitCode.ERROR

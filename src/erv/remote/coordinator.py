"""Who waits for a stage: a clone, not a run of it, so that what a killed run has left is nobody else's."""

from __future__ import annotations

import platform
import uuid

from erv.environment import Environment
from erv.files import sha256_of_text, write_text

_FILE = "coordinator"


def coordinator_of(environment: Environment) -> str:
    """The id by which a clone waits on boards, always the same; hold the clone's lock.

    Args:
        environment: of the clone.

    Raises:
        OSError: `.erv` can't be written.
    """
    file = environment.state / _FILE
    number = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if not number:
        number = uuid.uuid4().hex
        write_text(f"{number}\n", file)
    # Copies of a clone have the number in common, and machines may have name and folder in common.
    return sha256_of_text(f"{number}:{platform.node()}:{environment.workspace.resolve()}")[:32]

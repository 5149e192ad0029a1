"""The gate on lineage: a version whose data, code or runs can't be traced becomes no champion."""

from __future__ import annotations

from erv.environment import Environment
from erv.lineage.node import broken, summary
from erv.lineage.trace import Provenance
from erv.register.gates import CANT_TELL, FAIL, LINEAGE, PASS, Outcome, Verdict
from erv.settings import Settings


def lineage_gate(environment: Environment, settings: Settings, number: str) -> Verdict:
    """Follows every link of a version.

    Args:
        environment: where registry and store are.
        settings: for the model's name.
        number: of the version.

    Raises:
        RegistryError: MLflow can't be reached or refuses.
    """
    node = Provenance(environment, settings).trace(number)
    unclear = any(link.ok is None for part in node.walk() for link in part.links)
    outcome: Outcome = FAIL if broken(node) else CANT_TELL if unclear else PASS
    return Verdict(LINEAGE, outcome=outcome, reason=summary(node))

"""The gate on lineage: a version whose data, code or runs can't be traced becomes no champion.

It follows every link of a version and compares the files that are served, code included, with their record.
Large objects of DVC's remote are only looked up: `erv lineage --verify` reads them, too.
"""

from __future__ import annotations

from erv.environment import Environment
from erv.lineage.node import Node, broken, summary, unverifiable
from erv.lineage.trace import Provenance
from erv.register.gates import CANT_TELL, FAIL, LINEAGE, PASS, Outcome, Verdict
from erv.settings import Settings


def traced(environment: Environment, settings: Settings, number: str) -> Node:
    """The lineage of a version, as the gate looks at it.

    Args:
        environment: where registry and store are.
        settings: for the model's name.
        number: of the version.

    Raises:
        RegistryError: MLflow can't be reached or refuses.
    """
    return Provenance(environment, settings, served=True).trace(number)


def lineage_verdict(node: Node) -> Verdict:
    """The verdict on a lineage from `traced`."""
    outcome: Outcome = FAIL if broken(node) else CANT_TELL if unverifiable(node) else PASS
    return Verdict(LINEAGE, outcome=outcome, reason=summary(node))


def lineage_gate(environment: Environment, settings: Settings, number: str) -> Verdict:
    """Follows every link of a version; arguments and errors are those of `traced`."""
    return lineage_verdict(traced(environment, settings, number))

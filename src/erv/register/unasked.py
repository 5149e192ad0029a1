"""Gates of the parameters that a candidate was made without.

A bundle has the gates that `params.yaml` had when the stage `register` ran. One that was added or changed
since is decided by no publication of that bundle. It has a verdict all the same, or people would take it for
passed.
"""

from __future__ import annotations

from erv.register.register import Bundle
from erv.register.verdict import CANT_TELL, Verdict, gate_of
from erv.settings import Settings

UNASKED = "the candidate was made before params.yaml had this gate; `erv run` decides it"


def unasked(bundle: Bundle, settings: Settings) -> tuple[Verdict, ...]:
    """A verdict that can't be told on each gate of the parameters that a bundle lacks.

    Args:
        bundle: of the candidate.
        settings: of now.
    """
    known = set(map(gate_of, bundle.verdicts))
    wanted = [
        Verdict(
            gate.metric,
            gate.against,
            gate.minimum,
            maximum=gate.maximum,
            judge=gate.judge,
            study=gate.study,
            outcome=CANT_TELL,
            reason=UNASKED,
        )
        for gate in settings.register_.gates
    ]
    return tuple(verdict for verdict in wanted if gate_of(verdict) not in known)

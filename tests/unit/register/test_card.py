"""The gates in a version's card."""

from __future__ import annotations

from erv.register.card import with_verdicts
from erv.register.verdict import Verdict

DECIDED = Verdict("WAR", minimum=0.5, low=0.7, high=0.8, outcome="pass")
OPEN = Verdict("WAR", against="champion", minimum=-0.05)
CARD = f"# policy\n\n## Gates\n\n- {DECIDED.text()}\n- {OPEN.text()}\n\n## Limits\n\n- none\n"


def test_the_verdicts_of_the_registry_take_the_place_of_open_gates() -> None:
    """A card said `open` of a gate that the champion was met in."""
    met = Verdict("WAR", "champion", -0.05, 0.01, 0.02, "pass", opponent="3")
    card = with_verdicts(CARD, [DECIDED, met])
    assert card == CARD.replace(OPEN.text(), met.text())
    assert "open" not in card


def test_gates_that_were_never_decided_say_so() -> None:
    card = with_verdicts(CARD, None)
    assert "- not decided: WAR minus champion, needs more than -0.0500\n" in card
    assert DECIDED.text() in card
    assert "open" not in card
    assert with_verdicts("# no gates\n- open: to all\n", [DECIDED]) == "# no gates\n- open: to all\n"


def test_a_gate_of_which_only_the_name_is_known_says_so_too() -> None:
    assert with_verdicts(f"- {Verdict('lineage').text()}\n", None) == "- not decided: lineage\n"

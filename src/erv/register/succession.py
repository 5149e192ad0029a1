"""Whether a version becomes champion when it is published. What a person decided stands."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from erv.register.reign import How, Reign
from erv.register.verdict import SERVING_CODE, WITHDRAWN, Verdict, gate_of


def succession(
    number: str,
    *,
    bundle: str,
    code: str,
    same: Collection[str],
    champion: str | None,
    reigned: Collection[Reign],
    verdicts: Sequence[Verdict],
    before: Sequence[Verdict] | None,
    champions: Sequence[Verdict] | None,
) -> How | None:
    """How a version becomes champion, None if it doesn't.

    Args:
        number: of the version.
        bundle: hash of its bundle.
        code: digest of the code that answers for it.
        same: numbers of all versions of its bundle.
        champion: number of the present one, or None.
        reigned: the reigns of all champions so far. What had this bundle and this code counts whatever its
            number, as it may have been deleted; so does what was deleted without a note of its bundle.
        verdicts: on the version, now.
        before: on the version, from earlier publications; None if there were none.
        champions: on the champion if it is a version of this bundle; None if it was never gated.
    """
    if champion == number:
        return None
    if champion not in same:
        wins = all(verdict.passed for verdict in verdicts)
        return "gates" if wins and not any(reign.may_be_of(bundle) for reign in reigned) else None
    # Where it could have taken the place before, a person has chosen the other one.
    chosen = before is not None and no_worse(before, champions)
    ended = any(reign.may_be_of(bundle, code) for reign in reigned)
    return "serving code" if not (ended or chosen) and no_worse(verdicts, champions) else None


def no_worse(mine: Sequence[Verdict], champions: Sequence[Verdict] | None) -> bool:
    """Whether a version of the champion's bundle fails only gates that the champion did not pass either.

    Code that is in no commit is never excused: that of the champion was other code. Nor are withdrawn clips:
    the champion became one before they were.

    Args:
        mine: verdicts on that version.
        champions: those on the champion; None if it was never gated, so that it passed none.
    """
    if any(verdict.metric in (SERVING_CODE, WITHDRAWN) and not verdict.passed for verdict in mine):
        return False
    failed = {gate_of(verdict) for verdict in champions or () if not verdict.passed}
    return champions is None or all(verdict.passed or gate_of(verdict) in failed for verdict in mine)

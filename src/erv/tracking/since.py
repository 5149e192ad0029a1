"""What a run changed, in lines for people: parameters, code and metrics against earlier runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from erv.environment import Environment
from erv.tracking import lock_entries
from erv.tracking.description import Reference
from erv.tracking.origin import COMMIT_TAG

logger = logging.getLogger(__name__)

# Tags of a run that contains others: digests of the test clips (labels and content), and of judges, decoding
# and the code that measures.
MEASURED_ON, MEASURED_BY = "erv.measured.clips", "erv.measured.by"
_OTHERWISE = {
    MEASURED_ON: "on other test clips",
    MEASURED_BY: "by other judges or code, or with other decoding",
}
_SHOWN_CHANGES = 6
_LEAST = 5e-4  # smaller differences of a metric are shown as none


def since(
    environment: Environment,
    references: Sequence[Reference],
    values: Mapping[str, float | None],
    commit: str | None,
    measured: Mapping[str, str],
) -> list[str]:
    """One paragraph per earlier run; one whose metrics can't be read now is left out with a warning.

    Args:
        environment: where MLflow is.
        references: from the description of the run.
        values: its metrics by their names in MLflow, such as `erv/overall/EPC`; shares from 0 to 1, None for
            one that is not defined.
        commit: that of HEAD when the run started, or None outside of git.
        measured: its tags that say what the metrics were measured on and by.
    """
    lines: list[str] = []
    for number, reference in enumerate(references):
        run_id = reference.run.info.run_id
        also = [other.kind for other in references[number + 1 :] if other.run.info.run_id == run_id]
        if run_id in (other.run.info.run_id for other in references[:number]):
            continue
        try:
            before = lock_entries.server_of(environment).metrics(run_id)
        except OSError as error:
            logger.warning("%s can't be compared with now: %s", reference.run.info.run_name, error)
            continue
        lines += paragraph(reference, before, values, commit, measured, also)
    return lines


def paragraph(
    reference: Reference,
    before: Mapping[str, float],
    values: Mapping[str, float | None],
    commit: str | None,
    measured: Mapping[str, str],
    also: Sequence[str] = (),
) -> list[str]:
    """What changed against one run: its name, then a line per parameter, the commit, a line per metric.

    Metrics are compared only if both are known to be measured on the same clips, by the same judges.

    Args:
        reference: the run.
        before: its metrics.
        values: the metrics now; None for one that is not defined.
        commit: the commit of the run, or None.
        measured: what the metrics were measured on and by now; nothing if that isn't known.
        also: other kinds of reference that this run is, too.
    """
    info = reference.run.info
    lines = [f"{reference.title(also)}, {info.run_name} ({info.run_id[:8]}):"]
    changed = reference.changed
    if changed is None:
        lines.append("  parameters: unknown, that run recorded none")
    elif not changed:
        lines.append("  parameters: the same")
    else:
        lines += [f"  {change.text()}" for change in changed[:_SHOWN_CHANGES]]
        if len(changed) > _SHOWN_CHANGES:
            lines.append(f"  and {len(changed) - _SHOWN_CHANGES} more parameters; MLflow lists all")
    there = reference.run.data.tags.get(COMMIT_TAG)
    if there and commit and there != commit:
        lines.append(f"  commit {there[:8]} → {commit[:8]}")
    shared = [name for name in values if name in before]
    if shared and (why := _otherwise(reference.run.data.tags, measured)):
        lines.append(f"  metrics: not compared, {why}; `erv compare {info.run_id} .` pairs the clips")
        return lines
    moved = [line for name, now in values.items() if (line := _moved(name, before.get(name), now))]
    lines += moved if shared else []
    if shared and not moved:
        lines.append("  metrics: the same")
    if values and not shared:
        lines.append("  metrics: that run has none of the candidate")
    return lines


def _moved(name: str, before: float | None, now: float | None) -> str:
    """How a metric changed, which may be defined on one side only; empty if it is the same."""
    gain = ""
    if before is not None and now is not None:
        if abs(now - before) < _LEAST:
            return ""
        gain = f" ({100 * (now - before):+.1f})"
    elif before is now:
        return ""
    texts = ["none" if value is None else f"{100 * value:.1f}" for value in (before, now)]
    return f"  {name.replace('/overall/', ' ')}: {texts[0]} → {texts[1]}{gain}"


def _otherwise(tags: Mapping[str, str], measured: Mapping[str, str]) -> str:
    """Why the metrics of a run with these tags say nothing about those of now; empty if they do."""
    if not measured.keys() >= _OTHERWISE.keys():
        return "as what the policy was tested on here is not recorded"
    if not tags.keys() >= _OTHERWISE.keys():
        return "as that run did not record its test clips"
    different = [words for tag, words in _OTHERWISE.items() if tags[tag] != measured[tag]]
    return f"as they were measured {' and '.join(different)} then" if different else ""

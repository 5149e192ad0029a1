"""Data quality: Great Expectations over a manifest and the probes of its clips.

The expectations are in `erv.validate.expectations`. Great Expectations doesn't raise when an expectation is
missed, so the verdict is read from its result.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import DataError
from erv.manifest import SPLITS, ClipRow
from erv.settings import ValidateSettings
from erv.validate.clip_table import content_across_splits, manifest_table
from erv.validate.expectations import Rule, suite

if TYPE_CHECKING:
    from erv.validate.probes import Probe

logger = logging.getLogger(__name__)

SHOWN = 1000  # clip ids per expectation in the verdict
_NAMED = 5  # in a sentence
_FAULTS = 20  # kinds of faults in the verdict
_NOTICED_SECONDS = 0.05  # between the first picture and the first sound


def validate(
    dataset: str,
    rows: Sequence[ClipRow],
    probes: Mapping[str, Probe],
    settings: ValidateSettings,
    checks: Mapping[str, Any],
    docs: Path | None = None,
) -> dict[str, Any]:
    """Judges a manifest and its media.

    Args:
        dataset: its name, which is that of its label space.
        rows: the manifest.
        probes: of every clip, by clip id.
        settings: the `validate` section.
        checks: the checks of ingest (`data/checks/NAME.json`).
        docs: where to write the Data Docs, one self-contained HTML page; it is not a stage output.

    Returns:
        The verdict: `success`; `clips`, `splits` and `media` as counts; and `expectations` by name, each with
        its severity, what was expected, whether it was met, the number of clips that miss it and the first of
        their ids. If clips are read otherwise than the released code does, `media` names them (`adjusted`).
        It has no times and no paths, so equal manifests give equal verdicts.

    Raises:
        DataError: the manifest doesn't match the checks.
    """
    _require_same(dataset, rows, checks)
    rules = suite(dataset, rows, checks["labels"], settings)
    result = _run(dataset, manifest_table(rows, probes), rules)
    by_id = {item.expectation_config.id: item for item in result.results}
    expectations = {rule.name: _outcome(rule, by_id[rule.expectation.id], rows) for rule in rules}
    if not expectations["content_in_one_split"]["success"]:
        expectations["content_in_one_split"]["pairs"] = content_across_splits(rows)[:SHOWN]
    found = probes.values()
    adjusted = _adjusted(probes)
    verdict = {
        "dataset": dataset,
        "success": all(item["success"] for item in expectations.values() if item["severity"] != "warning"),
        "clips": len(rows),
        "fold": rows[0].fold if rows else 0,
        "splits": {split: sum(row.split == split for row in rows) for split in SPLITS},
        "media": {
            "unreadable": sum(look.fault is not None for look in found),
            "faults": _most_frequent(look.fault for look in found if look.fault is not None),
            "without_sound": sum(not look.has_audio and look.fault is None for look in found),
            "seconds": round(sum(look.seconds or 0.0 for look in found), 3),
            **({"adjusted": adjusted} if adjusted else {}),
        },
        "expectations": expectations,
    }
    for how, clips in adjusted.items():
        logger.info("validate %s: %d clips %s", dataset, clips["clips"], how)
    if docs is not None:
        from erv.validate.data_docs import write_data_docs

        write_data_docs(verdict, checks, result, docs)
    return verdict


def _adjusted(probes: Mapping[str, Probe]) -> dict[str, dict[str, Any]]:
    """How clips are read otherwise than the released code does: number of clips and the first ids, by how."""
    found: dict[str, list[str]] = {}
    for clip, look in probes.items():
        if look.fault is not None:
            continue
        if look.variable_rate:
            found.setdefault("with frames chosen by time (variable rate)", []).append(clip)
        if abs(look.sound_after) > _NOTICED_SECONDS:
            found.setdefault("with sound that does not start with the pictures", []).append(clip)
        if look.antiphase:
            found.setdefault("with one channel taken (antiphase)", []).append(clip)
        if look.pixel_ratio != 1.0:
            found.setdefault("with pixels that are not square", []).append(clip)
    return {how: {"clips": len(clips), "first": clips[:SHOWN]} for how, clips in sorted(found.items())}


def _most_frequent(faults: Iterable[str]) -> dict[str, int]:
    """The most frequent faults, with their numbers of clips."""
    counts = sorted(Counter(faults).items(), key=lambda item: (-item[1], item[0]))
    return dict(counts[:_FAULTS])


def _require_same(dataset: str, rows: Sequence[ClipRow], checks: Mapping[str, Any]) -> None:
    said = (checks.get("dataset"), int(checks.get("counts", {}).get("clips", -1)))
    if said != (dataset, len(rows)):
        raise DataError(
            f"{dataset}: the manifest has {len(rows)} clips, but the checks of ingest are for {said[1]} of"
            f" {said[0]}; the two files don't match, run ingest again"
        )


def missed(verdict: Mapping[str, Any], *, warnings: bool) -> list[str]:
    """One text per missed expectation: the warnings, or those that fail the stage."""
    return [
        _sentence(name, item)
        for name, item in verdict["expectations"].items()
        if not item["success"] and (item["severity"] == "warning") == warnings
    ]


def require_success(verdict: Mapping[str, Any]) -> None:
    """Raises DataError naming each failed expectation, its first clips and what to do."""
    failed = missed(verdict, warnings=False)
    if failed:
        where = f"; data/validation/{verdict['dataset']}.json lists the clips"
        count = "1 expectation" if len(failed) == 1 else f"{len(failed)} expectations"
        raise DataError(f"{count} failed over {verdict['clips']} clips: {'; '.join(failed)}{where}")


def _outcome(rule: Rule, result: Any, rows: Sequence[ClipRow]) -> dict[str, Any]:
    error = (result.exception_info or {}).get("exception_message")
    if error:
        raise RuntimeError(f"Great Expectations could not check {rule.name}: {error}")
    found = result.result
    positions = found.get("partial_unexpected_index_list") or []
    outcome = {
        "severity": rule.severity,
        "expected": rule.expected,
        "success": bool(result.success),
        "failed": int(found.get("unexpected_count") or 0),
        "clips": [rows[int(position)].clip_id for position in positions[:SHOWN]],
    }
    if not result.success:
        outcome["remedy"] = rule.remedy
        if "partial_missing_list" in found:
            outcome["lacking"] = sorted(str(value) for value in found["partial_missing_list"])
    return outcome


def _sentence(name: str, item: Mapping[str, Any]) -> str:
    shown = item.get("pairs") or item["clips"]
    text = f"{name} (expected {item['expected']}"
    if item["failed"]:
        count = "1 clip misses" if item["failed"] == 1 else f"{item['failed']} clips miss"
        text += f"; {count} it: {', '.join(shown[:_NAMED])}"
        rest = (len(shown) if item.get("pairs") else item["failed"]) - _NAMED
        text += f" and {rest} more" if rest > 0 else ""
    elif item.get("lacking"):
        text += f"; lacking: {', '.join(item['lacking'])}"
    return f"{text}): {item['remedy']}"


def _run(dataset: str, table: Any, rules: Sequence[Rule]) -> Any:
    """Great Expectations' result of the suite."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset(dataset)
    batch = asset.add_batch_definition_whole_dataframe("all clips")
    expectations = context.suites.add(gx.ExpectationSuite(name=dataset))
    for rule in rules:
        # Great Expectations has critical, warning and info. A tolerated expectation stops the stage above its
        # share.
        rule.expectation.severity = "warning" if rule.severity == "warning" else "critical"
        rule.expectation.notes = f"{rule.name} ({rule.severity}): {rule.expected}"
        expectations.add_expectation(rule.expectation)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=dataset, data=batch, suite=expectations)
    )
    # Only the positions of the first clips: lists of all of them take seconds and hundreds of megabytes.
    form = {"result_format": "SUMMARY", "partial_unexpected_count": SHOWN}
    return definition.run(batch_parameters={"dataframe": table}, result_format=form)

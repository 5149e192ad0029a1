"""The expectations of a data set: a Great Expectations suite over its manifest and its probed media.

The suite depends on the manifest. Official folds need clips for training and for testing, a set of
explanations needs training clips and a completion for each, and any other set may be for training or testing
alone (RAVDESS is for testing). Labels must be in the space with the data set's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from erv.manifest import SPLITS, ClipRow
from erv.settings import ValidateSettings
from erv.validate.bounds import REPLACE, Bound, bounds

# critical: every clip must meet it. tolerated: `validate.max_failed_share` of the clips may miss it, because
# extraction quarantines them one by one. warning: it never fails the stage.
Severity = Literal["critical", "tolerated", "warning"]

_RUN_AGAIN = "the manifest is not what ingest writes: run ingest again"
_COMPLETION = r"(?s)^<think>.+</think>\s*<answer>.+</answer>$"
_GIVEN = r"\S"


@dataclass(frozen=True)
class Rule:
    """An expectation.

    Attributes:
        name: its name in the verdict.
        severity: the consequence of missing it.
        expected: in words, with the required values.
        remedy: what to do about clips that miss it.
        expectation: the Great Expectations object.
    """

    name: str
    severity: Severity
    expected: str
    remedy: str
    expectation: Any


def suite(
    dataset: str, rows: Sequence[ClipRow], labels: Sequence[str], settings: ValidateSettings
) -> list[Rule]:
    """The expectations of a data set, in the order in which they are reported.

    Args:
        dataset: its name.
        rows: the manifest.
        labels: the names of its label space.
        settings: the `validate` section.
    """
    return [*_manifest_rules(dataset, rows, labels, settings), *_media_rules(rows, settings)]


def _needed_splits(rows: Sequence[ClipRow]) -> list[str]:
    if any(row.completion is not None for row in rows):
        return ["train"]
    return ["train", "test"] if any(row.fold for row in rows) else []


def _manifest_rules(
    dataset: str, rows: Sequence[ClipRow], labels: Sequence[str], settings: ValidateSettings
) -> list[Rule]:
    import great_expectations.expectations as gxe

    names = list(labels)
    allowed = ", ".join(names) if len(names) <= 12 else f"one of {len(names)} names"
    rules = [
        Rule(
            "clips_listed",
            "critical",
            "at least one clip",
            "check the source's lists",
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
        ),
        Rule(
            "clip_id_unique",
            "critical",
            "a clip id once",
            _RUN_AGAIN,
            gxe.ExpectColumnValuesToBeUnique(column="clip_id"),
        ),
        Rule("clip_id_given", "critical", "a clip id", _RUN_AGAIN, _matches("clip_id", _GIVEN)),
        Rule("dataset_is_this_one", "critical", dataset, _RUN_AGAIN, _among("dataset", [dataset])),
        Rule(
            "one_fold",
            "critical",
            "clips of one fold",
            _RUN_AGAIN,
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="fold", max_value=1),
        ),
        Rule("split_known", "critical", " or ".join(SPLITS), _RUN_AGAIN, _among("split", list(SPLITS))),
        Rule(
            "label_in_space",
            "critical",
            f"a label of the space {dataset}: {allowed}",
            "correct the source's label or add it to the label space, then run ingest again",
            _among("label", names),
        ),
        Rule(
            "sha256_well_formed",
            "critical",
            "64 hexadecimal digits",
            _RUN_AGAIN,
            _matches("sha256", "^[0-9a-f]{64}$"),
        ),
        Rule("media_known", "critical", "video or frames", _RUN_AGAIN, _among("media", ["video", "frames"])),
        *(
            Rule(f"{name}_given", "critical", what, _RUN_AGAIN, _among(f"{name}_given", [True]))
            for name, what in {
                "uri": "where the clip lies",
                "label_from": "the line that gave the label",
                "split_from": "the line that gave the split",
                "caption_from": "the line that gave the caption",
            }.items()
        ),
        # A clip used for both training and testing, under two names; the official lists are not checked for
        # this.
        Rule(
            "content_in_one_split",
            "critical" if settings.duplicates == "fail" else "warning",
            "the same content in one split only",
            "take one of each out of the source's lists, or accept them with validate.duplicates: warn",
            _among("splits_of_content", [1]),
        ),
        Rule(
            "content_unique",
            "warning",
            "the same content once",
            "take one of each out of the source's lists",
            gxe.ExpectColumnValuesToBeUnique(column="sha256"),
        ),
        Rule(
            "labels_all_present",
            "warning",
            "clips of every label of the space",
            "metrics per class leave out what is not there",
            gxe.ExpectColumnDistinctValuesToContainSet(column="label", value_set=names),
        ),
        Rule(
            "caption_not_blank",
            "warning",
            "text in every caption",
            "fill the caption in the source or leave it out",
            _matches("caption", _GIVEN),
        ),
    ]
    needed = _needed_splits(rows)
    if needed:
        rules.append(
            Rule(
                "splits_filled",
                "critical",
                f"clips in {' and '.join(needed)}",
                "check ingest.fold and the source's split files",
                gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=needed),
            )
        )
    if any(row.completion is not None for row in rows):
        rules += [
            Rule(
                "completion_given",
                "critical",
                "a completion for every clip",
                "every clip of a set of explanations needs one: fix the source",
                gxe.ExpectColumnValuesToNotBeNull(column="completion"),
            ),
            Rule(
                "completion_well_formed",
                "critical",
                "<think>...</think> and <answer>...</answer>, none of them empty",
                "correct the explanations in the source",
                _matches("completion", _COMPLETION),
            ),
        ]
    return rules


def _media_rules(rows: Sequence[ClipRow], settings: ValidateSettings) -> list[Rule]:
    share = settings.max_failed_share
    bounded = bounds(settings.model_dump())
    rules = [
        Rule("file_not_empty", "tolerated", "at least 1 byte", REPLACE, _between("bytes", share, 1)),
        Rule(
            "media_decodable",
            "tolerated",
            "frames that decode, the last ones included",
            REPLACE,
            _among("decodable", [True], share),
        ),
        *(_within(bound, share) for bound in bounded if bound.of_folders),
    ]
    if any(row.media == "video" for row in rows):
        *others, loudness = [_within(bound, share) for bound in bounded if not bound.of_folders]
        rules += [
            *others,
            Rule(
                "sound_present",
                "tolerated",
                "a sound track",
                "extract.missing_audio says what becomes of them; validate.max_failed_share accepts more",
                _among("has_audio", [True], share),
            ),
            loudness,
        ]
    if any(row.media == "frames" for row in rows):
        rules.append(
            Rule(
                "media_with_sound",
                "warning",
                "videos: folders of frames have no sound",
                "take the data set's videos, or extract.missing_audio says what becomes of the clips",
                _among("media", ["video"]),
            )
        )
    return rules


def _within(bound: Bound, failed_share: float) -> Rule:
    expectation = _between(bound.measure, failed_share, bound.low, bound.high)
    return Rule(bound.name, "tolerated", bound.expected, bound.remedy, expectation)


def _among(column: str, values: list[Any], failed_share: float = 0.0) -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, mostly=1.0 - failed_share)


def _matches(column: str, regex: str) -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToMatchRegex(column=column, regex=regex)


def _between(column: str, failed_share: float, low: float, high: float | None = None) -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, mostly=1.0 - failed_share
    )

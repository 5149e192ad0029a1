"""The card of a verifier: what it is, how good it is on sentences it was not trained on, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erv.train_erv.behaviour import ABILITIES

if TYPE_CHECKING:
    from erv.verifier.model import EmotionVerifier


def model_card(metrics: Mapping[str, Any], verifier: EmotionVerifier) -> str:
    """The text of `README.md` in a verifier folder: Markdown with the header that model hubs read.

    Args:
        metrics: the content of `metrics.json`.
        verifier: what it describes.
    """
    limits = dict(zip(verifier.labels, verifier.thresholds, strict=True))
    rows = [
        f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | "
        f"{'' if row['average_precision'] is None else format(row['average_precision'], '.3f')} | "
        f"{row['support']} | {limits[label]:.3f} |"
        for label, row in metrics["per_label"].items()
    ]
    behaviour, fitted = metrics["behaviour"], metrics["fitted"]
    failed = [f"- {ability}: {line}" for ability in ABILITIES for line in behaviour[ability]["failed"]]
    unmeasured = metrics["without_support"]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-classification",
            "tags: [emotion, multi-label, reward]",
            "---",
            "",
            "# Emotional Rationale Verifier",
            "",
            "Names the emotions that a sentence of an explanation speaks of:"
            f" {type(verifier.model).__name__}, {len(verifier.labels)} independent outputs. It is the reward"
            " of GRPO, and so must not be the judge of what GRPO made.",
            "",
            "## Use",
            "",
            "```python",
            "from erv.verifier import EmotionVerifier",
            "",
            'EmotionVerifier.from_pretrained("FOLDER").predict(["The voice trembles, full of fear."])',
            "```",
            "",
            "## Quality",
            "",
            f"On {metrics['n']} held-out sentences that served neither training nor calibration nor"
            " thresholds, each counted once:",
            "",
            f"- macro F1 {metrics['macro_f1']:.3f}, micro F1 {metrics['micro_f1']:.3f}, all labels right"
            f" {metrics['exact_match']:.3f}",
            f"- expected calibration error {metrics['calibration_error']:.4f}, of the labels that it names"
            f" {metrics['named_calibration_error']:.4f} ({metrics['calibration']})",
            *[
                f"- from {source}: macro F1 {part['macro_f1']:.3f} on {part['n']}"
                for source, part in metrics["by_source"].items()
            ],
            f"- fitted on {fitted['sentences']} sentences, {fitted['texts']} of them different; calibrated on"
            f" {fitted['calibration']}, thresholds chosen on {fitted['thresholds']} others",
            *(
                [f"- macro F1 says nothing of {', '.join(unmeasured)}: no held-out sentence"]
                if unmeasured
                else []
            ),
            "",
            "| label | precision | recall | F1 | average precision | sentences | threshold |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "## Behaviour",
            "",
            "Cases written by hand, without those that are in the corpus:",
            "",
            *[
                f"- {ability}: {behaviour[ability]['passed']} of {behaviour[ability]['total']}"
                for ability in ABILITIES
            ],
            *(["", "Failed:", "", *failed] if failed else []),
            "",
            "## Limits",
            "",
            "It reads one sentence without its neighbours, in the language and the wordings it was trained"
            " on, and says what the sentence claims, not whether the clip shows it. Not for decisions about"
            " people.",
            "",
        ]
    )

"""`erv verify`: what the verifier reads in an explanation, sentence by sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(name="verify")
@click.argument("text", required=False)
@click.option("--label", help="The true emotion: also prints the explanation reward.")
@click.option(
    "--verifier",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("models/verifier"),
    show_default=True,
    help="A verifier folder.",
)
def command(text: str | None, label: str | None, folder: Path) -> None:
    """Name the emotions of each sentence of TEXT (or of standard input).

    TEXT is an explanation, or a whole completion with its tags.
    """
    from erv.errors import DataError
    from erv.labels import LabelSpace
    from erv.prompts import format_completion, parse_completion
    from erv.rewards import explanation_reward, sentence_labels
    from erv.settings import load_settings
    from erv.verifier import EmotionVerifier, split_sentences

    if text is None:
        text = _read_input()
    explanation = parse_completion(text).explanation or text
    sentences = split_sentences(explanation, semantics="strict")
    if not sentences:
        raise DataError(
            "the text has no sentence; give an explanation, e.g. erv verify 'The voice trembles.'"
        )
    truth = LabelSpace.load("mafw").normalize(label)
    if label is not None and truth is None:
        names = ", ".join(LabelSpace.load("mafw").names)
        raise DataError(f"--label {label!r} is not an emotion of the MAFW space: {names}")
    verifier = EmotionVerifier.from_pretrained(folder)
    probabilities = verifier.predict(sentences)
    named = sentence_labels(probabilities, verifier.labels, verifier.thresholds)
    for sentence, labels, row in zip(sentences, named, probabilities, strict=True):
        best = ", ".join(f"{name} {float(row[verifier.labels.index(name)]):.2f}" for name in labels)
        click.echo(f"{best:<32} {sentence}")
    if truth is not None:
        rule = load_settings().grpo
        reward = explanation_reward(verifier, semantics=rule.semantics, min_sentences=rule.min_sentences)
        value = reward([format_completion(explanation, truth)], [truth])[0]
        asked = f", {rule.min_sentences} sentences asked for" if rule.semantics == "strict" else ""
        click.echo(f"explanation reward for {truth}: {value:.2f} ({rule.semantics}{asked})")


def _read_input() -> str:
    """Standard input as text; raises DataError when it is none."""
    from erv.errors import DataError

    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8 text ({error}); give the explanation as text") from None

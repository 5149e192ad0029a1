"""`erv verify`: what the verifier reads in an explanation, sentence by sentence, and the reward for it."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.rewards.explanation import Assessment, ReadSentence, Shaping
    from erv.sentences import Semantics
    from erv.verifier import EmotionVerifier

COLOURS: dict[str, str | int] = {
    "anger": "red",
    "disgust": "green",
    "fear": "magenta",
    "happiness": "yellow",
    "neutral": "bright_black",
    "sadness": "blue",
    "surprise": "cyan",
    "contempt": 208,
    "anxiety": 177,
    "helplessness": 67,
    "disappointment": 137,
}
_LONGEST_PATH = 4096


@click.command(name="verify")
@click.argument("text", required=False, metavar="[TEXT|FILE]")
@click.option("--target", help="The true emotion; also prints the explanation reward and its reasons.")
@click.option(
    "--verifier",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("models/verifier"),
    show_default=True,
    help="A verifier folder, or a classifier of the GoEmotions labels.",
)
def command(text: str | None, target: str | None, folder: Path) -> None:
    """Name the emotions of each sentence of TEXT, of a UTF-8 FILE, or of standard input.

    The text is an explanation, or a whole completion with its tags. Without --target, a completion is
    compared with its own answer. `grpo.semantics` and `grpo.shaping` in params.yaml decide how sentences are
    read.
    """
    from erv.errors import DataError
    from erv.labels import LabelSpace
    from erv.prompts import TAGS, parse_completion
    from erv.rewards.explanation import assess
    from erv.verifier import EmotionVerifier

    text = _read_input(text)
    space = LabelSpace.load("mafw")
    truth = space.normalize(target)
    if target is not None and truth is None:
        raise DataError(f"--target {target!r} is not an emotion of the MAFW space: {', '.join(space.names)}")
    if truth is None:
        truth = space.normalize(parse_completion(text).answer)
    # A text with any tag is a completion, read as GRPO reads it; one without tags is a bare explanation.
    completion = text if any(tag in text for tag in TAGS) else f"<think>{text}</think>"
    semantics, shaping = _rule()
    verifier = EmotionVerifier.from_pretrained(folder)
    found = assess(verifier, [completion], [truth or "none"], semantics=semantics, shaping=shaping)[0]
    if not found.sentences:
        raise DataError(
            "the text has no explanation with a sentence; give one, e.g. erv verify 'The voice trembles.'"
        )
    for sentence, line in zip(found.sentences, _readings(found, verifier), strict=True):
        click.echo(f"{_mark(sentence, truth)} {line}")
    if truth is not None:
        asked = "--target" if target is not None else "its own answer"
        if found.reward is None:
            raise DataError(
                f"{folder}: the verifier has no output for {truth}; it names {', '.join(verifier.labels)}"
            )
        click.echo(f"explanation reward for {truth} ({asked}): {found.reward:.2f} ({semantics})")
        for reason in _why(found, shaping):
            click.echo(f"  {reason}")


def _read_input(text: str | None) -> str:
    """The text itself, the content of the file with this name, or standard input."""
    from erv.errors import DataError

    if text is None:
        return _decoded(sys.stdin.buffer.read(), "standard input")
    if len(text) > _LONGEST_PATH:
        return text
    path = Path(text)
    try:
        if path.is_dir():
            raise DataError(f"{text}: is a folder; give a file or a text")
        if path.is_file():
            return _decoded(path.read_bytes(), text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return text
        raise DataError(f"{text}: can't be read ({error.strerror or error})") from error
    if len(text.split()) == 1 and "<" not in text and ("/" in text or path.suffix[1:].isalpha()):
        raise DataError(f"{text}: no such file; give an existing one, or a text of several words")
    return text


def _decoded(content: bytes, name: str) -> str:
    from erv.errors import DataError

    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 text (byte {error.start}); save it in UTF-8 or give the explanation as text"
        ) from None


def _rule() -> tuple[Semantics, Shaping]:
    """How GRPO reads explanations in this workspace; outside a workspace, the library's defaults."""
    from erv.rewards.explanation import Shaping
    from erv.settings import load_settings

    if not Path("params.yaml").is_file():
        return "strict", Shaping()
    settings = load_settings().grpo
    return settings.semantics, Shaping(**settings.shaping.model_dump())


def _readings(found: Assessment, verifier: EmotionVerifier) -> list[str]:
    """A line per sentence: labels with probabilities, and the text in the colour of the first label."""
    probabilities = verifier.predict([sentence.text for sentence in found.sentences])
    columns = list(verifier.labels)
    lines = []
    for sentence, row in zip(found.sentences, probabilities.tolist(), strict=True):
        named = ", ".join(f"{label} {row[columns.index(label)]:.2f}" for label in sentence.labels)
        if not sentence.labels:  # shown with what comes nearest
            highest = max(range(len(row)), key=row.__getitem__)
            named = "unreadable" if sentence.unreadable else f"none ({columns[highest]} {row[highest]:.2f})"
        times = f" (said {sentence.times} times)" if sentence.times > 1 else ""
        text = click.style(
            " ".join(sentence.text.split()),
            fg=COLOURS.get(sentence.labels[0] if sentence.labels else "neutral"),
        )
        lines.append(f"{named:<32} {text}{times}")
    return lines


def _mark(sentence: ReadSentence, truth: str | None) -> str:
    if truth is None:
        return " "
    if sentence.speaks_of(truth):
        return click.style("+", fg="green")
    return click.style("-", fg="red") if sentence.counts_for(truth) else " "


def _why(found: Assessment, shaping: Shaping) -> list[str]:
    """How the reward comes about, with a line for everything that affected it."""
    kind = "sentences" if found.target == "neutral" else "sentences that are not merely neutral"
    lines = [f"{found.matching} of {found.counted} {kind} speak of {found.target}"]
    if found.repeats:
        most = f"more than {shaping.max_repeats}, so it earns {shaping.repeats_earn:g}"
        lines.append(f"{found.repeats} repeated, {most if found.repetitive else 'counted once'}")
    listings = sum(sentence.listing for sentence in found.sentences)
    if listings:
        verbs = ("names", "matches") if listings == 1 else ("name", "match")
        lines.append(f"{listings} {verbs[0]} more than {shaping.max_named} emotions, and so {verbs[1]} none")
    foreign = sum(sentence.unreadable for sentence in found.sentences)
    if foreign:
        lines.append(f"{foreign} in words that the verifier has not been trained on, not counted")
    scenery = sum(not (item.labels or item.listing or item.unreadable) for item in found.sentences)
    if scenery:
        lines.append(f"{scenery} with no emotion above its threshold, not counted")
    surplus = sum(sentence.surplus for sentence in found.sentences)
    if surplus:
        lines.append(f"{surplus} that only name {found.target} once more, not counted")
    if found.counted < found.needed and found.needed > 1:
        lines.append(f"at least {found.needed} such sentences are required: counted as {found.needed}")
    if found.length < 1.0:
        band = f"{shaping.min_words or 0} to {shaping.max_words or 'any number of'}"
        lines.append(f"{found.words} words where {band} are required: times {found.length:.2f}")
    if found.evidence < 1.0:
        wanted = f"{shaping.min_content_words or 0} and {shaping.min_cues or 0}"
        lines.append(
            f"content words {found.content_words}, cues of face, body, voice or words {found.cues},"
            f" where {wanted} are required: times {found.evidence:.2f}"
        )
    return lines

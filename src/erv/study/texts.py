"""What raters read, by language: texts that come with erv, or those of a folder of your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from erv.errors import SettingsError
from erv.files import parse_yaml
from erv.study.contents import PAGE_WORDS, RATINGS, Kind, Texts

SHIPPED = Path(__file__).with_name("texts")
QUESTIONS = ("emotion", "preferred", *(f"ratings.{name}" for name in RATINGS))


class Wording(BaseModel):
    """A file of texts.

    Attributes:
        consent: paragraphs.
        instructions: paragraphs.
        questions: wording by question, for all of `QUESTIONS`.
        checks: the explanation of an attention check, by kind of item.
        emotions: shown name by label. A compound label is shown as its parts if it isn't there.
        page: the other words on the pages, all of `PAGE_WORDS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    consent: tuple[str, ...] = Field(min_length=1)
    instructions: tuple[str, ...] = Field(min_length=1)
    questions: dict[str, str]
    checks: dict[Kind, str]
    emotions: dict[str, str]
    page: dict[str, str]

    def texts(self, emotions: Sequence[str], between: str = " + ") -> Texts:
        """What a plan holds of it.

        Args:
            emotions: the labels of the study.
            between: stands between the parts of a compound emotion.

        Raises:
            KeyError: a label, or a part of one, has no name here.
        """
        shown = {}
        for label in emotions:
            parts = [label] if label in self.emotions else label.split("_")
            shown[label] = between.join(self.emotions[part] for part in parts)
        return Texts(
            consent=self.consent,
            instructions=self.instructions,
            emotions=shown,
            questions={name: self.questions[name] for name in QUESTIONS},
            page={name: self.page[name] for name in PAGE_WORDS},
        )


def read_wording(language: str, folder: str | None) -> tuple[Wording, Path]:
    """The texts in a language, and their file.

    Args:
        language: of two letters.
        folder: of your own texts; None for those that come with erv.

    Raises:
        SettingsError: there are none, or they are incomplete.
    """
    path = (SHIPPED if folder is None else Path(folder)) / f"{language}.yaml"
    try:
        raw = parse_yaml(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(sorted(item.stem for item in SHIPPED.glob("*.yaml")))
        raise SettingsError(
            f"{path}: not found; study.languages names {language!r}, and erv has texts in {known}. Write the"
            " file after src/erv/study/texts/en.yaml, and name its folder in study.texts"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}; correct it") from None
    try:
        wording = Wording.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{path}: {where}: {first['msg']}; see src/erv/study/texts/en.yaml") from None
    checks = {str(kind): text for kind, text in wording.checks.items()}
    for part, wanted, words in (
        ("questions", QUESTIONS, wording.questions),
        ("checks", ("pair", "rating"), checks),
        ("page", PAGE_WORDS, wording.page),
    ):
        if lacking := [name for name in wanted if not words.get(name)]:
            raise SettingsError(f"{path}: {part} lacks {lacking[0]}; see src/erv/study/texts/en.yaml")
    return wording, path


def read_texts(
    languages: Sequence[str], folder: str | None, emotions: Sequence[str]
) -> tuple[dict[str, Texts], dict[Kind, str]]:
    """All that a study shows, by language, and its attention checks in the first language.

    Raises:
        SettingsError: a file is missing or incomplete, or has no word for an emotion of the study.
    """
    found: dict[str, Texts] = {}
    checks: dict[Kind, str] = {}
    for language in languages:
        wording, path = read_wording(language, folder)
        try:
            found[language] = wording.texts(emotions)
        except KeyError as error:
            raise SettingsError(
                f"{path}: emotions has no name for {error.args[0]!r}; copy the texts to a folder of your own,"
                " add it there, and name the folder in study.texts"
            ) from None
        checks = checks or dict(wording.checks)
    return found, checks

"""The section `ingest`: the fold, the splits, and how each data set is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from erv.settings.section import PositiveInt, Section, Share, of_form

DatasetName = Annotated[
    str, of_form(r"[a-z][a-z0-9_]*", "lower-case letters, digits and `_`, the first a letter")
]


class _Reader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MafwReader(_Reader):
    """MAFW's official tree.

    Attributes:
        set: single (11 emotions) or compound (43 classes, names joined as `anger_disgust`).
        listing: which of the official lists to read; `with_caption` has no neutral clips.
    """

    reader: Literal["mafw"]
    set: Literal["single", "compound"]
    listing: Literal["no_caption", "with_caption"]


class DfewReader(_Reader):
    """DFEW's official trees.

    Attributes:
        media: original videos, their 224x224 copies (`avi`), or images of all frames or of 16 per clip.
            Frames have no sound.
    """

    reader: Literal["dfew"]
    media: Literal["original", "avi", "frames", "frames_16"]


class RavdessReader(_Reader):
    """RAVDESS, read from its file names; all clips are test clips.

    Attributes:
        channels: which audio-video files to read: speech, song or both.
    """

    reader: Literal["ravdess"]
    channels: Annotated[tuple[Literal["speech", "song"], ...], Field(min_length=1)]

    @field_validator("channels")
    @classmethod
    def _once(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(channels)) != len(channels):
            raise ValueError("names a channel twice")
        return channels


class ReasoningReader(_Reader):
    """A set of explanations: R1-Omni JSON, EMER v1 or v2, or MERR, detected from its files."""

    reader: Literal["reasoning"]


class TableColumns(_Reader):
    """Column names in a table of clips; None where there is no such column."""

    clip: str = "clip"
    label: str = "label"
    split: str | None = None
    caption: str | None = None
    subtitle: str | None = None
    fold: str | None = None


class TableReader(_Reader):
    """Any other data set: a CSV or JSONL table of clips.

    Attributes:
        table: path of the table below the source.
        split: the split of all clips, if no column gives it.
        columns: their names.
    """

    reader: Literal["table"]
    table: Annotated[str, of_form(r"(?i).*\.(csv|jsonl)", "a path that ends in .csv or .jsonl")]
    split: Literal["train", "validation", "test"] | None = None
    columns: TableColumns = TableColumns()

    @model_validator(mode="after")
    def _says_its_splits(self) -> TableReader:
        said = [self.split, self.columns.split, self.columns.fold]
        if sum(item is not None for item in said) != 1:
            raise ValueError("set one of split (for all clips), columns.split and columns.fold")
        return self


ReaderSettings = Annotated[
    MafwReader | DfewReader | RavdessReader | ReasoningReader | TableReader, Field(discriminator="reader")
]


class IngestSettings(Section):
    """Fold, validation split, limits on the data sets, and how each is read."""

    fold: PositiveInt
    validation_share: Share
    expect: Literal["full", "subset"]
    max_excluded_share: Share
    readers: dict[DatasetName, ReaderSettings]

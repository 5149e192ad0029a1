"""Clips whose use is withdrawn: which versions are affected, in which role and stage."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import DataError, ExitCode
from erv.lineage.contents import Clip
from erv.lineage.membership import Membership, VersionRoles, clip_name, roles_document

SCHEMA = "erv.withdrawn/1"
_WIDTH = 110


@dataclass(frozen=True)
class Withdrawn:
    """The answer.

    Attributes:
        asked: number of ids in the list.
        clips: what they mean, sorted.
        unknown: ids that no record of any version names, in the order of the list.
        versions: what each version did with the clips.
        unlisted: sentences about manifests that can't be read; an unknown id may be in one of them.
    """

    asked: int
    clips: tuple[Clip, ...]
    unknown: tuple[str, ...]
    versions: tuple[VersionRoles, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def affected(self) -> list[VersionRoles]:
        """The versions that used one of the clips."""
        return [item for item in self.versions if item.used]

    @property
    def exit_code(self) -> ExitCode:
        """Of `erv lineage --withdrawn`; an answer that isn't complete is none, whatever it found."""
        if self.unknown or self.unlisted or any(item.unread for item in self.versions):
            return ExitCode.LINEAGE
        return ExitCode.UNMET if self.affected else ExitCode.DONE

    def lines(self) -> Iterator[str]:
        """The answer as text."""
        for item in self.versions:
            if not (item.used or item.left_out or item.unread):
                continue
            yield item.version.title
            for used in item.used:
                yield from _wrapped(f"{used.role} ({used.stage}): ", [clip_name(clip) for clip in used.clips])
            for left in item.left_out:
                yield f"  not {left.role} ({left.stage}): {clip_name(left.clip)}, {left.because}"
            for sentence in item.unread:
                yield f"  UNREADABLE: {sentence}"
        for sentence in self.unlisted:
            yield f"UNREADABLE: {sentence}"
        for sentence, titles in self._told().items():
            yield from _wrapped(f"not recorded: {sentence}: ", titles, indent="")
        if self.unknown:
            yield from _wrapped("unknown: ", self.unknown, indent="")
        if silent := [item for item in self.versions if item.unknown and not item.used]:
            title = ", ".join(f"{item.version.model}/{item.version.number}" for item in silent)
            yield from _wrapped("may have used them, as not all is recorded: ", [title], indent="")
        touched = len({clip for item in self.affected for used in item.used for clip in used.clips})
        yield (
            f"{len(self.affected)} of {len(self.versions)} versions used {touched} of {len(self.clips)}"
            f" clips; {len(self.unknown)} of {self.asked} ids are unknown"
        )

    def document(self) -> dict[str, Any]:
        """The answer as JSON, see `schemas/withdrawn.json`."""
        return {
            "schema": SCHEMA,
            "asked": self.asked,
            "clips": [clip_name(clip) for clip in self.clips],
            "unknown": list(self.unknown),
            "unread": list(self.unlisted),
            "versions": [roles_document(item) for item in self.versions],
            "exit_code": self.exit_code.value,
        }

    def _told(self) -> dict[str, list[str]]:
        """The versions of each sentence about what isn't recorded: most share it."""
        found: dict[str, list[str]] = {}
        for item in self.versions:
            for sentence in item.unknown:
                found.setdefault(sentence, []).append(f"{item.version.model}/{item.version.number}")
        return found


def read_ids(path: Path, *, empty: bool = False) -> list[str]:
    """The clip ids of a list: one per line, each once, without blank lines and what follows a `#`.

    Args:
        path: of the list.
        empty: whether it may have none.

    Raises:
        DataError: the file is missing, not UTF-8, or has no id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: not found; expected a text file with a clip id per line") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    ids = (line.partition("#")[0].strip() for line in lines)
    found = list(dict.fromkeys(name for name in ids if name))
    if not (found or empty):
        raise DataError(f"{path}: has no clip id; write one per line, such as mafw/00019")
    return found


def find_withdrawn(ids: Sequence[str], membership: Membership) -> Withdrawn:
    """What every version did with the clips that these ids mean.

    Args:
        ids: `mafw/00019`, or `00019` for that clip of every data set that has it.
        membership: of the versions to look at.
    """
    meant = {name: membership.matching(name) for name in ids}
    clips = {clip for found in meant.values() for clip in found}
    return Withdrawn(
        len(ids),
        tuple(sorted(clips)),
        tuple(name for name, found in meant.items() if not found),
        tuple(membership.of(clips)),
        tuple(membership.unlisted),
    )


def _wrapped(head: str, names: Sequence[str], indent: str = "  ") -> list[str]:
    count = f"{len(names)}: " if len(names) > 1 else ""
    return textwrap.wrap(
        f"{head}{count}{', '.join(names)}",
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )

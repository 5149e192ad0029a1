"""Which versions used which clips, in which role and stage."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from erv.environment import Environment
from erv.errors import ErvError
from erv.lineage.contents import Clip, Clips, Contents, NotRecordedError
from erv.lineage.objects import Objects
from erv.lineage.published import Published, kept_source
from erv.lineage.roles import ROLES, Use, data_sets_of, uses_of


@dataclass(frozen=True)
class Used:
    """Clips that a stage of a version used in a role; sorted."""

    role: str
    stage: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class LeftOut:
    """A clip that a stage of a version would have used in a role, and why it did not."""

    role: str
    stage: str
    clip: Clip
    because: str


@dataclass(frozen=True)
class VersionRoles:
    """What a version did with some clips.

    Attributes:
        version: the version.
        used: by role and stage, in the order of `ROLES`; without those that used none of the clips.
        left_out: sorted by stage and clip.
        unknown: sentences about what its records don't tell.
        unread: sentences about records that can't be read; the others are then no complete answer.
    """

    version: Published
    used: tuple[Used, ...]
    left_out: tuple[LeftOut, ...]
    unknown: tuple[str, ...]
    unread: tuple[str, ...]


class Membership:
    """Answers from the records of each version alone, never from the state of a workspace.

    Args:
        environment: where the records are.
        versions: those to answer for.
    """

    def __init__(self, environment: Environment, versions: Sequence[Published]) -> None:
        self.versions = versions
        self._told = {version: uses_of(version.lock, version.written) for version in versions}
        self._contents = Contents(
            Objects(environment), lambda md5, path: kept_source(environment, versions, md5, path)
        )

    def of(self, wanted: Set[Clip] | None, dataset: str | None = None) -> list[VersionRoles]:
        """What each version did with these clips.

        Args:
            wanted: the clips; None for all.
            dataset: only clips of this data set.
        """
        return [self._of(version, wanted, dataset) for version in self.versions]

    def of_version(self, version: Published) -> VersionRoles:
        """All that one version did with clips."""
        return self._of(version, None, None)

    def matching(self, name: str) -> set[Clip]:
        """The clips that a name means: `mafw/00019`, or `00019` in every data set that has it.

        Clip ids may contain slashes themselves.
        """
        dataset, _, clip_id = name.partition("/")
        if clip_id and (dataset, clip_id) in self.known:
            return {(dataset, clip_id)}
        return {(dataset, name) for dataset in self._datasets_of.get(name, ())}

    @property
    def known(self) -> set[Clip]:
        """The clips that the records of any version name."""
        return self._known[0]

    @property
    def unlisted(self) -> list[str]:
        """Sentences about manifests that can't be read, so that their clips are not among the known ones."""
        return self._known[1]

    @property
    def unread(self) -> list[str]:
        """Sentences about all records that can't be read: what is not found may be in one of them."""
        versions = (f"{r.version.title}: {why}" for r in self.of(frozenset()) for why in r.unread)
        return [*self.unlisted, *versions]

    @cached_property
    def data_sets(self) -> set[str]:
        """The names of the data sets that any version names."""
        return {name for version in self.versions for name in data_sets_of(version.lock)} | {
            dataset for dataset, _ in self.known
        }

    @cached_property
    def _known(self) -> tuple[set[Clip], list[str]]:
        found: set[Clip] = set()
        unlisted = []
        manifests = {
            (dataset, manifest, quarantine)
            for version in self.versions
            for dataset, (manifest, quarantine) in data_sets_of(version.lock).items()
        }
        for dataset, manifest, quarantine in sorted(manifests, key=str):
            try:
                found |= self._contents.known(manifest, dataset, quarantine)
            except ErvError as error:
                unlisted.append(f"manifest of {dataset}: {error}")
        for members in {use.members for told in self._told.values() for use in told.uses}:
            with contextlib.suppress(ErvError):  # `of` says so for every version that has it
                found |= self._contents.clips(members).used
        return found, unlisted

    @cached_property
    def _datasets_of(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for dataset, clip_id in sorted(self.known):
            found.setdefault(clip_id, []).append(dataset)
        return found

    def _of(self, version: Published, wanted: Set[Clip] | None, dataset: str | None) -> VersionRoles:
        if version.unrecorded:
            return VersionRoles(version, (), (), (version.unrecorded,), ())
        if version.problem:
            return VersionRoles(version, (), (), (), (version.problem,))
        told = self._told[version]
        used: list[Used] = []
        left_out: list[LeftOut] = []
        unread = list(told.lost)
        unknown = list(told.unknown)
        for use in sorted(told.uses, key=lambda use: (ROLES.index(use.role), use.stage)):
            try:
                clips = self._contents.clips(use.members)
            except NotRecordedError as error:  # nobody has to say what a released checkpoint learned from
                unknown.append(f"{use.stage}: {error}")
                continue
            except ErvError as error:  # a record that is named and lost is another matter
                unread.append(f"{use.stage}: {error}")
                continue
            used += _used(use, clips, wanted, dataset)
            left_out += _left_out(use, clips, wanted, dataset)
        return VersionRoles(version, tuple(_merged(used)), tuple(left_out), tuple(unknown), tuple(unread))


def _used(use: Use, clips: Clips, wanted: Set[Clip] | None, dataset: str | None) -> list[Used]:
    found = clips.used if wanted is None else clips.used & wanted
    chosen = sorted(clip for clip in found if dataset in (None, clip[0]))
    return [Used(use.role, use.stage, tuple(chosen))] if chosen else []


def _left_out(use: Use, clips: Clips, wanted: Set[Clip] | None, dataset: str | None) -> Iterable[LeftOut]:
    for clip in clips.left_out if wanted is None else sorted(clips.left_out.keys() & wanted):
        if dataset in (None, clip[0]):
            yield LeftOut(use.role, use.stage, clip, clips.left_out[clip])


def _merged(used: Iterable[Used]) -> list[Used]:
    """One item per role and stage: a stage may read several data sets."""
    found: dict[tuple[str, str], set[Clip]] = {}
    for item in used:
        found.setdefault((item.role, item.stage), set()).update(item.clips)
    return [Used(role, stage, tuple(sorted(clips))) for (role, stage), clips in found.items()]


def clip_name(clip: Clip) -> str:
    """`mafw/00019`."""
    return "/".join(clip)


def roles_document(roles: VersionRoles) -> dict[str, Any]:
    """What a version did with clips, as JSON."""
    version = roles.version
    return {
        "model": version.model,
        "version": version.number,
        "aliases": list(version.aliases),
        "used": [
            {"role": item.role, "stage": item.stage, "clips": [clip_name(clip) for clip in item.clips]}
            for item in roles.used
        ],
        "left_out": [
            {"role": item.role, "stage": item.stage, "clip": clip_name(item.clip), "because": item.because}
            for item in roles.left_out
        ],
        "unknown": list(roles.unknown),
        "unread": list(roles.unread),
    }


def clips_counted(count: int) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} clip" + ("" if count == 1 else "s")


def roles_counts(roles: VersionRoles) -> list[dict[str, Any]]:
    """How many clips of each data set a version used, by role and stage."""
    return [
        {"role": item.role, "stage": item.stage, "dataset": dataset, "clips": count}
        for item in roles.used
        for dataset, count in sorted(Counter(dataset for dataset, _ in item.clips).items())
    ]

"""The browser's data: one list of all clips, and their records in pages that a browser opens easily.

The first page is part of the report, the others are files of their own. A page opened from a disk may not
read other files, so each is complete. All of them have the list, so filters and links reach every clip.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from erv.files import write_text
from erv.labels import LabelSpace
from erv.report.media import AUDIO_SECONDS
from erv.report.names import DATASETS, hues

# With the report's own figures (about 0.6 MB), a page stays below 10 MB.
PAGE_BYTES = 8_500_000
TABLE = "clips.csv"
# Only our own script runs, and nothing is fetched from anywhere.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
    " media-src data:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Browser:
    """What the templates need for one page of clips.

    Attributes:
        clips: number of clips on all pages.
        page: number of the page, from 1.
        pages: number of pages.
        panel: names of the judges, the headline's first.
        readers: who reads single sentences, the verifier first.
        datasets: names of the data sets.
        emotions: true emotions among the clips, in the MAFW space where they have a name there.
        cues: whether any clip's cues are known.
        data: what the script reads: JSON in which no character can end the element around it.
        script: the script itself.
        policy: the page's content security policy.
    """

    clips: int
    page: int
    pages: int
    panel: Sequence[str]
    readers: Sequence[str]
    datasets: Sequence[str]
    emotions: Sequence[str]
    cues: bool
    data: Markup
    script: Markup
    policy: str


def file_name(page: int) -> str:
    """The name of a page's file, from page 2: page 1 is in the report."""
    return f"page-{page}.html"


def cut(records: Iterable[Mapping[str, Any]], most: int) -> Iterator[list[str]]:
    """Cuts records into pages, as JSON.

    Args:
        records: of the clips, in order.
        most: bytes of a page; a single record may be larger.
    """
    page: list[str] = []
    size = 0
    for record in records:
        text = embedded(record)
        if page and size + len(text) > most:
            yield page
            page, size = [], 0
        page.append(text)
        size += len(text) + 1
    if page:
        yield page


def embedded(value: Any) -> str:
    """JSON that can stand in a script element, whatever its texts: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class ClipList:
    """All clips of the report, as every page lists them."""

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]],
        titles: Mapping[str, str],
        panel: Sequence[str],
        readers: Sequence[str],
        *,
        cues: bool,
        unexplained: Collection[str] = (),
    ) -> None:
        """Encodes the list once.

        Args:
            entries: from `erv.report.clips.entry`, in the order of the pages.
            titles: policy -> its name on the page, in the order of the entries' answers.
            panel: names of the judges, in the order of the votes.
            readers: who reads single sentences.
            cues: whether any clip's cues are known.
            unexplained: policies that answer without explaining.
        """
        self._unexplained = frozenset(unexplained)
        self._entries, self._titles, self._panel, self._readers = entries, titles, panel, readers
        self._cues = cues
        self._datasets = sorted({item["dataset"] for item in entries})
        pooled = {name: _pooled(name) for name in self._datasets}
        known = {name for item in entries for name in (item["truth"], *item["answers"]) if name is not None}
        emotions = sorted(known)
        codes = {name: index for index, name in enumerate(emotions)}
        places = {name: index for index, name in enumerate(self._datasets)}
        found = {pooled[item["dataset"]].get(item["truth"], item["truth"]) for item in entries}
        self._emotions = sorted(found)
        shared = {
            "policies": [
                {"name": name, "title": title, "explains": name not in self._unexplained}
                for name, title in titles.items()
            ],
            "datasets": [
                {"name": name, "title": DATASETS.get(name, name), "pooled": pooled[name]}
                for name in self._datasets
            ],
            "emotions": emotions,
            "hues": hues(self._datasets),
            "panel": list(panel),
            "readers": list(readers),
            "sound_seconds": AUDIO_SECONDS,
            "clips": [
                [
                    places[item["dataset"]],
                    item["id"],
                    codes[item["truth"]],
                    [codes.get(name, -1) for name in item["answers"]],
                    item["flags"],
                    item["changed"],
                ]
                for item in entries
            ],
        }
        self._shared = embedded(shared)[1:-1]

    @property
    def room(self) -> int:
        """Bytes that a page has for records."""
        return max(PAGE_BYTES - len(self._shared), PAGE_BYTES // 8)

    def browser(self, page: int, records: Sequence[str], counts: Sequence[int]) -> Browser:
        """A page.

        Args:
            page: its number, from 1.
            records: its records, from `cut`.
            counts: number of records on each page.
        """
        ends = [sum(counts[: index + 1]) for index in range(len(counts))]
        own = {
            "page": page - 1,
            "first": sum(counts[: page - 1]),
            "pages": [{"href": _link(page, other), "end": end} for other, end in enumerate(ends, 1)],
        }
        script = (files("erv.report") / "templates" / "browser.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        data = f'{{{self._shared},{embedded(own)[1:-1]},"records":[{",".join(records)}]}}'
        return Browser(
            clips=len(self._entries),
            page=page,
            pages=len(counts),
            panel=self._panel,
            readers=self._readers,
            datasets=self._datasets,
            emotions=self._emotions,
            cues=self._cues,
            data=Markup(data),  # noqa: S704 (see `embedded`)
            script=Markup(script),  # noqa: S704 (our own)
            policy=_POLICY.format(digest=digest),
        )

    def write_table(self, path: Path, counts: Sequence[int], votes: Mapping[tuple[str, str], Any]) -> None:
        """Writes the clips as a table: a row per clip and policy, for spreadsheets and scripts.

        The columns are dataset, clip_id, truth, policy, answer, changed, page, and one per judge with the
        emotion that it reads, or the outcome in brackets; nothing where the policy gives no explanation.

        Args:
            path: the file to write.
            counts: number of records on each page.
            votes: (data set, clip id) -> by policy, the verdicts in the panel's order.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["dataset", "clip_id", "truth", "policy", "answer", "changed", "page", *self._panel])
        pages = [page for page, count in enumerate(counts, 1) for _ in range(count)]
        for item, page in zip(self._entries, pages, strict=True):
            said = zip(self._titles, item["answers"], votes[item["dataset"], item["id"]], strict=True)
            for policy, answer, verdicts in said:
                heard = [verdict["emotion"] or f"({verdict['outcome']})" for verdict in verdicts]
                if policy in self._unexplained:
                    heard = [""] * len(self._panel)
                clip = [item["dataset"], item["id"], item["truth"]]
                writer.writerow([*clip, policy, answer or "", item["changed"], page, *heard])
        write_text(text.getvalue(), path)


def _link(page: int, other: int) -> str:
    """The address of a page as seen from another one."""
    if page == other:
        return ""
    if other == 1:
        return "../report.html"
    return file_name(other) if page > 1 else f"clips/{file_name(other)}"


def _pooled(dataset: str) -> dict[str, str]:
    """The names in the MAFW space of those emotions of a data set that it calls otherwise."""
    space, mafw = LabelSpace.load(dataset), LabelSpace.load("mafw")
    to_mafw = space.to(mafw)
    pairs = {name: to_mafw(name) for name in space.names}
    return {name: other for name, other in pairs.items() if other is not None and other != name}

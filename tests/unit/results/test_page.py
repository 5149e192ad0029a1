"""The page of figures per setting, and the same as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import jsonschema

from erv.results.page import document, lines, page, table, write
from erv.results.published import published
from tests.support.paths import ROOT
from tests.support.result_rows import HOSTILE, gathered, rows

SCHEMA = ROOT / "src/erv/results/schemas/figures.json"


class Tables(HTMLParser):
    """The texts of all rows of tables, cell by cell, with the attributes of their rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[tuple[dict[str, str | None], list[str]]] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append((dict(attrs), []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1][1] and data.strip():
            self.rows[-1][1][-1] = " ".join([*self.rows[-1][1][-1].split(), *data.split()])

    def of(self, **attributes: str) -> list[str]:
        """The first row of results with these attributes."""
        wanted = {f"data-{name}": value for name, value in attributes.items()}
        return next(cells for found, cells in self.rows if wanted.items() <= found.items())


def test_what_all_share_stands_once_and_what_differs_beside_the_figures() -> None:
    found = Tables(page(gathered([*rows()[:4]])))
    facts = {cells[0]: cells[1] for _, cells in found.rows if len(cells) == 2}
    assert facts["Frames per clip"] == "8"
    assert facts["Seed"] == "101"
    assert facts["Rewards"] == "accuracy 1.0 + explanation 1.0 + format 1.0"
    (headings,) = [cells for _, cells in found.rows if "WAR" in cells]
    assert headings[1:9] == ["Policy", "Data set", "Clips", "WAR", "UAR", "EEA", "EPC", "FCR"]
    assert headings[9:] == ["Fold", "Method", "Record"]
    first = found.of(policy="sft", fold="1")
    assert first[1:5] == ["Cold start", "MAFW", "60", "51.0 46.0 to 55.0"]
    assert first[9:11] == ["1", "sft"]


def test_what_is_not_known_is_said_and_never_filled_in() -> None:
    html = page(gathered())
    cells = Tables(html).of(dataset="dfew", published="own")
    assert cells[3:9] == ["–", "51.0", "–", "–", "–", "–"]
    assert "unknown" in cells
    assert "unknown (asked for: bfloat16 on cuda)" in html
    assert "float32 on cpu (unknown of 1 result)" in [row[1] for _, row in Tables(html).rows if len(row) == 2]
    assert "has run again since" in html
    foreign = Tables(html).of(published="published")
    assert "not stated" in foreign
    assert "unknown" not in foreign


def test_texts_of_others_are_never_markup() -> None:
    html = page(gathered(None, HOSTILE))
    assert HOSTILE not in html
    tags = Tables(html).tags
    assert tags.count("script") == 2
    assert "img" not in tags


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    first, second = write(gathered(), tmp_path / "a"), write(gathered(), tmp_path / "b")
    assert [path.name for path in first] == ["by_setting.html", "by_setting.csv", "by_setting.json"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_csv_has_every_item_of_every_setting() -> None:
    found = list(csv.DictReader(io.StringIO(table(gathered()))))
    assert len(found) == len(gathered().results)
    assert (found[0]["WAR"], found[0]["WAR_low"], found[0]["ingest.fold"]) == ("0.51", "0.46", "1")
    assert found[0]["grpo.beta"] == "doesn't apply"
    assert found[5]["grpo.beta"] == "unknown"
    assert found[5]["WAR_low"] == ""
    assert found[-1]["ingest.fold"] == "not stated"
    assert found[-1]["source"] == "a third party's table"


def test_the_json_is_as_its_schema_says() -> None:
    found = json.loads(json.dumps(document(gathered(None, "MLflow can't be asked"))))
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    assert found["differing"] == ["ingest.fold", "method", "judge"]
    assert found["unknown"]["precision"] == 1
    assert found["remarks"] == ["MLflow can't be asked"]
    assert {item["key"] for item in found["results"]} == {item.key for item in gathered().results}
    assert len({item["key"] for item in found["results"]}) == len(found["results"])


def test_the_terminal_has_the_figures_and_what_differs() -> None:
    text = "\n".join(lines(gathered([*rows()[:4]], foreign=False)))
    assert "51.0 (46.0 to 55.0)" in text
    assert "Fold" in text
    assert "Frames per clip" not in text
    assert lines(gathered([], foreign=False)) == []


def test_no_result_is_said_to_be_none() -> None:
    assert "No result was found" in page(gathered([], foreign=False))


def test_published_figures_name_their_source_and_no_interval() -> None:
    for result in published():
        assert result.record["source"]
        assert all(figure.low is None and 0 < (figure.value or 0) < 1 for figure in result.figures.values())
    (omni,) = [r for r in published() if r.policy == "R1-Omni (0.5B)" and r.dataset == "dfew"]
    assert omni.figures["WAR"].value == 0.6583
    assert omni.get("decoding") == "greedy"
    assert omni.get("ingest.fold") == "not stated"

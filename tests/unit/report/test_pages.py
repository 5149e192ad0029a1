import csv
import json
import re

import pytest

from erv.report import pages
from erv.report.names import hues
from tests.support.reports import HOSTILE, direct_of, evidence_of, predictions_of, with_direct, write


@pytest.fixture
def several(tmp_path, monkeypatch):
    """The report of 12 clips in pages of a few, and its folder."""
    monkeypatch.setattr(pages, "PAGE_BYTES", 40_000)
    html = write(tmp_path, predictions_of(), evidence_of())
    return tmp_path, html


def data_of(html):
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert len(found) == 1
    return json.loads(found[0])


@pytest.mark.parametrize("text", [HOSTILE, "<!--<script>", "]]>", "&lt;/script&gt;", "\u2029 \ud83d"])
def test_no_text_can_end_the_element_around_it(text):
    embedded = pages.embedded({"text": text, text: 1})
    assert not set(embedded) & set("<>&\u2028\u2029")
    assert embedded.isascii()
    assert json.loads(embedded)["text"] == text


def test_records_are_cut_into_pages_by_their_size():
    records = [{"n": "x" * size} for size in (10, 10, 10, 90, 10)]
    sizes = [[len(json.loads(text)["n"]) for text in page] for page in pages.cut(records, 45)]
    assert sizes == [[10, 10], [10], [90], [10]]
    assert list(pages.cut([], 45)) == []


def test_a_larger_run_is_on_several_pages_that_know_all_clips(several):
    folder, html = several
    files = sorted(path.name for path in (folder / "clips").iterdir())
    count = len(files)  # page 1 is the report, and the table is no page
    assert count > 2
    assert files == sorted([pages.TABLE, *(f"page-{page}.html" for page in range(2, count + 1))])
    texts = [html, *((folder / "clips" / f"page-{page}.html").read_text() for page in range(2, count + 1))]
    found = [data_of(text) for text in texts]
    assert all(data["clips"] == found[0]["clips"] and len(data["clips"]) == 12 for data in found)
    assert [data["page"] for data in found] == list(range(count))
    assert [data["first"] for data in found] == [0, *(page["end"] for page in found[0]["pages"][:-1])]
    assert sum(len(data["records"]) for data in found) == found[0]["pages"][-1]["end"] == 12
    assert all(len(text) < 200_000 for text in texts[1:])
    # Links from page to page, as files beside each other.
    assert [page["href"] for page in found[0]["pages"][:3]] == ["", "clips/page-2.html", "clips/page-3.html"]
    assert [page["href"] for page in found[1]["pages"][:3]] == ["../report.html", "", "page-3.html"]


def test_only_its_own_script_runs(several):
    folder, html = several
    for text in (html, (folder / "clips" / "page-2.html").read_text()):
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", parts["script-src"])
        assert parts["img-src"] == parts["media-src"] == "data:"
        assert not re.search(r"<[^>]+ on\w+=", text)


def test_equal_inputs_give_equal_files(several, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    write(other, predictions_of(), evidence_of())
    names = [path.relative_to(other) for path in sorted(other.rglob("*")) if path.is_file()]
    assert len(names) > 3
    assert all((other / name).read_bytes() == (several[0] / name).read_bytes() for name in names)


def test_the_table_has_every_answer_and_vote(several):
    folder, _ = several
    with (folder / "clips" / pages.TABLE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 12
    found = {(row["clip_id"], row["policy"]): row for row in rows}
    row = found["00004", "sft"]
    assert (row["truth"], row["lexical"], row["embedding"]) == ("disgust", "anger", "(unreadable)")
    assert found["00005", "erv"]["answer"] == ""
    numbers = {int(row["page"]) for row in rows}
    assert numbers == set(range(1, 1 + max(numbers)))


def test_the_table_has_no_votes_on_what_gives_no_explanation(tmp_path):
    html = write(tmp_path, {**predictions_of(), "direct": direct_of()}, with_direct(evidence_of()))
    assert [item["explains"] for item in data_of(html)["policies"]] == [True, True, True, False]
    with (tmp_path / "clips" / pages.TABLE).open(newline="") as stream:
        votes = {(row["policy"], row["lexical"], row["embedding"]) for row in csv.DictReader(stream)}
    assert {item for item in votes if item[0] == "direct"} == {("direct", "", "")}


def test_emotions_have_the_hue_of_their_counterpart():
    found = hues(["mafw", "dfew"])
    assert found["angry"] == found["anger"]
    assert found["sad"] == found["sadness"]
    assert "neutral" not in found

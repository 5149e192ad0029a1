import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from erv.errors import DataError, EvaluationError
from erv.evaluate.compare import table_notes
from erv.evaluate.evaluate import measure, write_json, write_predictions
from erv.labels import LabelSpace
from erv.plots.tables import write_class_balance, write_durations, write_quarantine
from erv.report.datasets import read_datasets
from erv.report.evidence import Evidence
from erv.report.report import build_comparison, load_evaluations
from erv.sentences import count_words, normalize
from erv.validate.probing import Probe
from tests.support.reports import (
    DECODING,
    HOSTILE,
    JUDGE,
    MEASURED,
    SETTINGS,
    compared,
    direct_of,
    evidence_of,
    predictions_of,
    with_direct,
    write,
)
from tests.support.verdicts import judge, rows_of


@pytest.fixture(scope="module")
def predictions():
    return predictions_of()


@pytest.fixture(scope="module")
def evidence():
    return evidence_of()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Makes a page; equal inputs are made once."""
    known = []

    def made(predictions, evidence, *, again=False):
        for inputs, result in known:
            if inputs == (predictions, evidence) and not again:
                return result
        comparison = compared(predictions, evidence)
        html = write(tmp_path_factory.mktemp("report"), predictions, evidence, comparison)
        known.append(((predictions, evidence), (comparison, html)))
        return known[-1][1]

    return made


def data_of(html):
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(found[1])


class Checker(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(predictions, evidence, page):
    _, html = page(predictions, evidence)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    outside = {link for link in checker.links if not link.startswith("data:")}
    assert outside <= {f"#{name}" for name in checker.ids}
    assert len(checker.ids) == len(set(checker.ids))
    assert "@import" not in html
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name in the script, never fetched


def test_what_a_model_writes_is_text_not_markup(predictions, evidence, page):
    _, html = page(predictions, evidence)
    assert "<b>plain" not in html
    assert "onerror" in html
    assert "<img" not in html
    assert html.count("</script>") == 2  # those of the data and of the script
    assert re.search(r"no (audio|<tags>)", html)[1] == "audio"
    assert "no audio &lt;stream&gt;" in html


def test_the_page_shows_figures_cues_and_sentences(predictions, evidence, page):
    comparison, html = page(predictions, evidence)
    for policy in predictions:
        assert f"{100 * comparison['policies'][policy]['overall']['WAR']['value']:.1f}" in html
    data = data_of(html)
    clips = {clip[1]: record for clip, record in zip(data["clips"], data["records"], strict=True)}
    said = clips["00001"]["answers"][0]
    assert data["readers"] == ["verifier", "lexical"]
    assert ["The voice is loud, burning with rage.", [["anger"], ["happiness"]]] in said["sentences"]
    assert ["voice loud", True] in said["claims"]
    assert clips["00007"]["answers"][0]["answer"] == "bored"
    assert clips["00007"]["answers"][0]["unread"] == "outside"
    assert "45% of the explanations" in html
    assert comparison["malformed"] == dict.fromkeys(predictions, 1)
    assert comparison["outside"] == dict.fromkeys(predictions, 1)
    for note in table_notes(comparison):
        assert note in unescape(html)
    assert comparison["judge"] == JUDGE
    assert "50.0% as a mean over emotions (30.0 to 70.0). Explanations by emotion" in html
    assert "right on: anger 1 of 2, fear 0 of 0" in html
    assert comparison["decoding"] == DECODING
    assert "says nothing about contempt" in html


def test_the_page_shows_the_verifier_and_what_it_was_made_from(predictions, evidence, page):
    comparison, html = page(predictions, evidence)
    assert comparison["verifier"]["macro_f1"] == evidence.verifier["macro_f1"] == 1.0
    assert (
        f"calibration error {100 * comparison['verifier']['calibration_error']:.1f} over all decisions"
        in html
    )
    assert html.count(": average precision 100.0") == 10  # contempt has no held-out text
    assert "average precision 100.0, 4 texts" in html
    assert len(re.findall(r"<title>\d+ decisions: probability", html)) == 2
    assert "<td>negation</td>" in html
    assert "&lt;b&gt;: anger" in html
    assert "90 labelled sentences, 60 of them distinct (train 40, validation 10, test 10)" in html
    assert "openai:&lt;m&gt; and local:t agree with kappa 0.75 on 90 sentences" in html


def test_shape_and_control_of_explanations_are_shown(predictions, evidence, page):
    comparison, html = page(predictions, evidence)
    shape = comparison["explanations"]["erv"]
    # 11 of 12 clips have an explanation of 2 sentences and 14 words, none said twice; one has more words.
    assert shape["sentences"] == pytest.approx(22 / 12, abs=1e-6)
    assert shape["words"] == pytest.approx((11 * 14 + count_words(normalize(HOSTILE))) / 12, abs=1e-6)
    assert shape["repeated"] == 0.0
    # The judge always says anger, a third of the labels: shuffling can't change what that gives by much.
    assert shape["shuffled_EEA"] == pytest.approx(11 / 36, abs=0.02)
    assert f'<td class="num">{100 * shape["shuffled_EEA"]:.1f}</td>' in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": {**JUDGE, "digest": "1" * 64}}, "'sft' and 'erv' differ in their judge"),
        ({"decoding": {**DECODING, "temperature": 1.0}}, "'sft' and 'erv' differ in their decoding"),
        ({"judge": {"name": "lexical"}}, "'erv': its metrics.json does not say which judge"),
    ],
)
def test_policies_measured_differently_are_not_compared(predictions, evidence, change, message):
    evaluations = {**evidence.evaluations, "erv": {**MEASURED, **change}}
    with pytest.raises(EvaluationError, match=message):
        build_comparison(predictions, replace(evidence, evaluations=evaluations), SETTINGS, seed=0)
    with pytest.raises(EvaluationError, match="'erv' has predictions but no metrics"):
        build_comparison(
            predictions, replace(evidence, evaluations={"sft": MEASURED, "mine": MEASURED}), SETTINGS, seed=0
        )


def test_a_change_of_code_that_was_accepted_keeps_no_policy_from_the_report(predictions, evidence):
    """DVC evaluates all policies again unless `erv accept` said that the change makes no difference."""
    anew = {**evidence.evaluations["erv"], "code": {"reading": "r", "figures": "f"}}
    found = replace(evidence, evaluations={**evidence.evaluations, "erv": anew})
    assert "erv" in build_comparison(predictions, found, SETTINGS, seed=0)["order"]


def test_real_data_get_no_note_on_planted_contradictions(predictions, evidence, page):
    real = Evidence(evidence.evaluations, evidence.verifier, evidence.sentences, evidence.data)
    _, html = page(predictions, real)
    assert "planted" not in html
    assert "Are the claims true" not in html
    assert "claimed cue" not in html
    for record in data_of(html)["records"]:
        assert record["cues"] == []
        assert [answer["claims"] for answer in record["answers"]] == [[], [], []]


@pytest.mark.parametrize(
    ("excluded", "says"),
    [
        ((1, 0), "1 left out of training and tuning."),
        ((0, 0), "none was left out, so the figures are too good."),
        ((0, 1), "1 to tune on that nothing was tuned on."),
    ],
)
def test_clips_in_two_splits_are_on_the_page(predictions, evidence, excluded, says, page):
    pair = {"clip": "reasoning/s<1>", "use": "train", "twin": "mafw/00019", "twin_use": "test"}
    leakage = {
        "clips": {"train": 9, "validation": 2, "test": 3},
        "same_content": 1,
        "same_look": 0,
        "excluded": excluded[0],
        "unread": excluded[1],
        "found": [{**pair, "alike": "same content"}],
    }
    _, html = page(predictions, replace(evidence, leakage=leakage))
    assert says in html
    assert "reasoning/s&lt;1&gt; (train) = mafw/00019 (test): same content" in html
    _, html = page(predictions, replace(evidence, leakage={**leakage, "found": []}))
    assert "None is in two of these groups." in html


def test_the_headline_is_the_candidate_in_words(predictions, evidence, page):
    comparison, html = page(predictions, evidence)
    top = unescape(html[html.index("<h1>") : html.index("<h2>The policies")])
    assert "<strong>ERV (+ explanation reward)</strong> against <strong>mine</strong>" in top
    assert "can't tell" in top
    war = comparison["policies"]["erv"]["overall"]["WAR"]["value"]
    assert f"→ {100 * war:.1f}</span>" in top


@pytest.mark.parametrize("order", [("sft", "erv", "direct"), ("direct", "sft", "erv")])
def test_figures_about_explanations_do_not_apply_to_a_policy_without(predictions, evidence, page, order):
    rows = {**predictions, "direct": direct_of()}
    _, html = page({policy: rows[policy] for policy in order}, with_direct(evidence))
    text = unescape(html)
    top = text[text.index("<h1>") : text.index("<h2>The policies")]
    against = top[top.index("against <strong>direct") :]
    against = against[: against.index("</dl>") + 400]
    words = dict(re.findall(r"<dt class=\"\w+\">([^<]+)</dt><dd>(.*?)</dd>", against, re.S))
    assert re.findall(r">(\w+)</abbr>", words["doesn't apply"]) == ["EEA", "EPC", "FCR", "inconsistency"]
    assert re.findall(r">(\w+)</abbr>", words["can't tell"]) == ["WAR", "UAR"]
    assert "<strong>direct</strong> answers without explaining.</p>" in against
    table = text[text.index("<h2>What each judge reads") : text.index("<h2>Differences")]
    heads = re.findall(r'scope="rowgroup" title="[^"]*">(\w+)', table)
    assert heads == ["EEA", "EPC", "FCR", "inconsistency"]
    assert "against Cold start" in table
    assert "</span>direct<" not in table
    shape = text[text.index("<h3>Shape of") : text.index("<h2>The data")]
    cells = re.findall(r'<td class="num">([^<]*)<', re.search(r"<tr><td>direct</td>.*?</tr>", shape)[0])
    assert cells == ["-", "-", "-", "-", "0", "2", "-"]
    assert "EPC doesn't apply" in text
    assert not re.search(r"direct \d+", text[text.index("<h3>The judge") : text.index("<h3>Are the claims")])


def test_figures_per_emotion_and_further_ones_are_folded_away(predictions, evidence, page):
    rows = {**predictions, "direct": direct_of()}
    comparison, html = page({policy: rows[policy] for policy in ("erv", "direct")}, with_direct(evidence))
    further = html[html.index("<details><summary>Further figures") :]
    further = further[: further.index("</details>")]
    assert re.findall(r"<th title=[^>]+>(\w+)", further) == ["inconsistency_all", "format", "repetitive"]
    item = comparison["policies"]["erv"]["overall"]["format"]
    assert f"<td>{100 * item['value']:.1f}<small>{100 * item['low']:.1f} to" in further
    assert "direct</th><td>-</td><td>-</td><td>-</td></tr>" in further
    table = html[html.index("<details><summary>Per emotion") :]
    table = table[: table.index("</details>")]
    columns = re.findall(r'<th class="num"[^>]*>(\w+)', table)
    assert columns == [
        *("WAR", "EEA", "EPC", "FCR", "inconsistency", "precision"),
        *("inconsistency_all", "format", "repetitive"),
    ]
    assert re.findall(r'scope="rowgroup">(\w+)<small>4 clips', table) == ["anger", "disgust", "fear"]
    lines = [re.findall(r'<td class="num">([^<]*)<', line) for line in re.findall("<tr>.*?</tr>", table)[1:]]
    values = comparison["classes"]["erv"]["overall"]["anger"]
    assert lines[0] == ["–" if values[m] is None else f"{100 * values[m]:.1f}" for m in columns]
    assert [cell == "-" for cell in lines[1]] == [m not in ("WAR", "precision") for m in columns]
    assert html.count("<details><summary>Per emotion") == len(comparison["clips"])


def test_the_page_says_what_a_mark_means_and_who_labelled(predictions, evidence, page):
    """The mark is wider than inconsistency, which counts no silence."""
    _, html = page(predictions, evidence)
    assert "does not read in its explanation: it reads another emotion there, or none at all." in html
    assert "Inconsistency counts fewer of them" in html
    assert "the emotion that one reader, who saw no clip and no answer, heard" in html
    assert "people had named" not in html


def test_the_headline_is_the_candidate_wherever_it_stands(predictions, evidence, tmp_path):
    html = write(tmp_path, predictions, evidence, candidate="sft")
    leads = re.findall(r'<p class="lead"><strong>([^<]+)</strong> against <strong>([^<]+)<', html)
    assert leads == [("Cold start", "mine"), ("Cold start", "ERV (+ explanation reward)")]
    assert "is Cold start minus the other policy" in html
    assert "register.policy" not in html
    table = html[html.index("<h2>What each judge reads") : html.index("<h2>Differences")]
    assert "against ERV" in table


def test_the_page_says_when_the_last_policy_stands_for_the_candidate(predictions, evidence, tmp_path):
    two = {policy: predictions[policy] for policy in ("sft", "mine")}
    html = write(tmp_path, two, evidence, candidate="erv")
    assert '<p class="lead"><strong>mine</strong> against <strong>Cold start<' in html
    assert "The candidate erv (register.policy) is not among these policies; the last of them" in html


def test_judges_are_side_by_side_with_their_worth(predictions, evidence, page):
    comparison, html = page(predictions, evidence)
    table = html[html.index("<h2>What each judge reads") : html.index("<h2>Differences")]
    assert re.findall(r'<th scope="col">(\w+)', table) == ["lexical", "embedding", "majority"]
    assert " · 2 judges · " in html, "the majority is none"
    assert "90.0% right<small>70.0 to 95.0, on 200 texts; 75.0% over emotions" in table
    # Two judges agree on the clips of anger only: 0, 3, 6 and 9, of which the answer to 9 is fear.
    both = comparison["judges"]["majority"]["policies"]["erv"]["overall"]
    assert (both["EPC"]["value"], both["EEA"]["value"]) == (3 / 12, pytest.approx(4 / 12, abs=1e-6))
    for name in ("lexical", "embedding", "majority"):
        value = comparison["judges"][name]["policies"]["erv"]["overall"]["EPC"]["value"]
        assert f"<td>{100 * value:.1f}<small>" in table


def test_the_page_says_in_how_many_explanations_a_judge_hears_nothing(predictions, evidence, page):
    """It said 0 of explanations in which the judge was silent, beside an inconsistency that they lower."""
    comparison, html = page(predictions, evidence)
    assert comparison["outcomes"]["erv"] == {
        "lexical": {"named": 11, "silent": 1},
        "embedding": {"named": 11, "unreadable": 1},
    }
    table = html[html.index("hears no emotion of the list") : html.index("<h2>Differences")]
    first = table[: table.index("</tbody>")]
    assert first.count("<td>1<small>silent 1</small></td><td>1<small>unreadable 1</small></td><td></td>") == 3
    alpha = comparison["agreement"]["erv"]["alpha"]
    assert f" {alpha:.2f}" in table[table.index("Krippendorff") :]
    assert comparison["explanations"]["erv"]["distinct"] == pytest.approx(2 / 12, abs=1e-6)


def test_a_comparison_or_rows_without_judges_are_refused(predictions, evidence, tmp_path):
    comparison = compared(predictions, evidence)
    plain = {key: value for key, value in comparison.items() if key != "judges"}
    with pytest.raises(EvaluationError, match=r"no figures by judge .*run `dvc repro evaluate report` again"):
        write(tmp_path, predictions, evidence, plain)
    partial = {
        **comparison,
        "judges": {"lexical": {"worth": {}, "policies": {}, "differences": {}, "verdicts": {}}},
    }
    with pytest.raises(EvaluationError, match="judge 'lexical' lacks sft, mine, erv"):
        write(tmp_path, predictions, evidence, partial)
    rows = {**predictions, "erv": [{**predictions["erv"][0], "verdicts": []}, *predictions["erv"][1:]]}
    with pytest.raises(
        EvaluationError, match="'erv': clip '00000' of mafw was read by no judge, expected lexical, embedding"
    ):
        write(tmp_path, rows, evidence, comparison)
    assert not list(tmp_path.iterdir())


def test_one_policy_alone_is_a_page_too(predictions, evidence, page):
    comparison, html = page({"sft": predictions["sft"]}, evidence)
    assert comparison["differences"] == {}
    assert "Differences on the same clips" not in html


def test_equal_inputs_give_equal_bytes(predictions, evidence, page):
    first, second = page(predictions, evidence), page(predictions, evidence, again=True)
    assert first == second


def test_evaluations_are_read_in_order_and_must_be_whole(predictions, tmp_path):
    for name in ("erv", "sft"):
        write_predictions(predictions[name], tmp_path / name / "predictions.parquet")
        write_json({**measure(predictions[name]), "judge": JUDGE}, tmp_path / name / "metrics.json")
    found, metrics = load_evaluations(tmp_path, ["sft", "erv"])
    assert list(found) == list(metrics) == ["sft", "erv"]
    (tmp_path / "erv" / "metrics.json").unlink()
    with pytest.raises(EvaluationError, match=r"erv.metrics\.json: metrics not found"):
        load_evaluations(tmp_path, ["sft", "erv"])
    with pytest.raises(EvaluationError, match="no evaluation of policy 'r1_omni'"):
        load_evaluations(tmp_path, ["sft", "r1_omni"])


def test_the_page_shows_the_data(predictions, evidence, page):
    _, html = page(predictions, evidence)
    data = html[html.index("<h2>The data</h2>") :]
    assert "fold 1, train, anger: 5" in data
    assert "fold 2, test, fear: 1" in data
    assert "train 8 · test 3 · in quarantine 2" in data
    assert "1.5 to 2 s: 7 clips" in data
    assert "no audio &lt;stream&gt;" in data
    assert "3 of 14 listed clips are not in the &lt;source&gt;" in data
    assert "<strong>not_black</strong>" in data
    assert "1 clip does not meet it" in data


@pytest.fixture
def left(tmp_path):
    """What the stages of a data set leave: folders plots, checks and validation."""
    rows = rows_of("dfew", 20)
    plots = tmp_path / "plots" / "dfew"
    write_class_balance(
        {1: {}, 2: {"train": {"happy": 9}}},
        1,
        rows,
        LabelSpace.load("dfew").names,
        plots / "class_balance.csv",
    )
    write_durations([Probe(seconds=2.2)] * 20, 60.0, plots / "durations.csv")
    write_quarantine([("extract", "no sound")] * 2, plots / "quarantine.csv")
    verdict = judge(rows, {"00003": Probe(fault="the file is empty")})
    write_json(verdict, tmp_path / "validation" / "dfew.json")
    checks = [
        {"name": name, "success": False, "found": "3 clips", "expected": "4"}
        for name in ("listed_but_absent", "published_single", "published_folds")
    ]
    write_json({"checks": checks}, tmp_path / "checks" / "dfew.json")
    return tmp_path


def test_the_evidence_of_the_data_is_what_its_stages_left(left):
    found = read_datasets(["dfew"], left / "plots", left / "checks", left / "validation")["dfew"]
    assert found.fold == 1
    assert found.splits == {"train": 12, "validation": 4, "test": 4}
    assert {row["fold"] for row in found.balance} == {"1", "2"}
    assert found.durations == [{"seconds": "2.0", "clips": "20"}]
    assert found.quarantined == 2
    assert found.warnings == [
        "listed_but_absent: 3 clips; expected 4",
        "the published counts of single, folds differ: this is not the complete set",
    ]
    assert [(item.name, item.clips) for item in found.missed] == [("media_decodable", 1)]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plots/dfew/quarantine.csv", r"quarantine\.csv: not found; `dvc repro` writes it"),
        ("checks/dfew.json", r"dfew\.json: not found; run `dvc repro ingest` first"),
        ("validation/dfew.json", r"dfew\.json: not found; run `dvc repro validate` first"),
    ],
)
def test_a_missing_file_is_reported(left, path, message):
    (left / path).unlink()
    with pytest.raises(DataError, match=message):
        read_datasets(["dfew"], left / "plots", left / "checks", left / "validation")


def test_the_page_says_which_claims_are_true_of_the_clips(predictions, evidence, page):
    _, html = page(predictions, evidence)
    table = html[html.index("<h3>Are the claims true") : html.index("<h3>Shape of")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr><td>.*?</tr>", table)]
    found = {(row[0], row[2]): row[1:] for row in rows}
    # 11 of 12 explanations say that the voice is loud, which is true of every clip; none speaks of the face.
    name = "ERV (+ explanation reward)"
    kinds = ("all", "face", "voice")
    assert set(found) == {(policy, kind) for policy in ("Cold start", "mine", name) for kind in kinds}
    by, kind, claims, precision, recall = found[name, "voice"]
    assert (by, kind, claims) == ("cues", "voice", "11")
    assert re.fullmatch(r"100\.0 \(\d+\.\d to 100\.0\), by chance 100\.0", precision)
    assert recall.startswith("91.7 (")
    assert found[name, "face"][3] == "-"


def test_a_figure_that_is_not_defined_is_a_dash(predictions, evidence, tmp_path):
    """Inconsistency is a share of the right answers, and there may be none."""
    comparison = compared(predictions, evidence)
    nothing = dict.fromkeys(("value", "low", "high"))
    for part in (comparison, *comparison["judges"].values()):
        for name in ("policies", "differences", "verdicts"):
            for scopes in part[name].values():
                for values in scopes.values():
                    values["inconsistency"] = {"verdict": "can't tell"} if name == "verdicts" else nothing
    html = write(tmp_path, predictions, evidence, comparison)
    assert "<td>–<small>– to –</small></td>" in html
    assert '<abbr title="of the clips answered right' in html
    assert "A dash in place of a bar is no figure" in html
    assert "inconsistency – (– to –)" in html


@pytest.mark.slow
def test_a_data_set_with_several_emotions_has_a_table_of_sets(page, predictions, evidence):
    """They were in metrics.json alone, without an interval, a difference or a word."""

    def with_compounds(rows, answer):
        several = [
            {
                **row,
                "dataset": "mafw_compound",
                "label": "fear_surprise",
                "completion": f"<think>The voice is loud.</think>\\n<answer>{answer}</answer>",
                "predicted": None,
            }
            for row in rows
        ]
        return [*rows, *several]

    answers = dict(zip(predictions, ("anger", "fear", "surprise and fear"), strict=True))
    comparison, html = page(
        {p: with_compounds(rows, answers[p]) for p, rows in predictions.items()}, evidence
    )
    assert "set_f1" not in comparison["policies"]["erv"]["overall"]
    table = re.search(r"<caption>Several emotions at once.*?</table>", html, re.DOTALL).group()
    rows = re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", table)
    shown = {re.sub(r"<.*?>", "", name): re.sub(r"<.*?>", " ", cells).split() for name, cells in rows[1:]}
    (erv,) = (cells for name, cells in shown.items() if name.startswith("ERV") and "minus" not in name)
    assert erv[0] == "100.0"
    gaps = [cells for name, cells in shown.items() if "minus" in name]
    assert [cells[0] for cells in gaps] == ["can&#39;t", "better"]

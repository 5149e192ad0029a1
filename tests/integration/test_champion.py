"""A champion that was tested otherwise is evaluated again before a candidate is compared with it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from erv.environment import Environment, isolate
from erv.errors import RegistryError
from erv.evaluate.evaluate import read_predictions, write_predictions
from erv.files import content_digest, sha256_of, write_text
from erv.register import publish as publishing
from erv.register.aliases import promote, rollback
from erv.register.decoding import serving_settings
from erv.register.publish import PublishResult, publish
from erv.register.register import write_candidate
from erv.register.reign import TAG_PREFIX, reigns
from erv.register.verdict import LINEAGE, Verdict
from erv.register.versions import PUBLISH_RUN_TAG, files_uri, versions
from erv.settings import load_settings
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from tests.conftest import ROOT
from tests.unit.register.test_register import (
    WORTH,
    comparison_of,
    predictions,
    write_evaluation,
)

pytestmark = pytest.mark.integration

COMMAND = (
    "python evaluate.py --name erv --policy policy --predictions eval/erv/predictions.parquet"
    " --metrics eval/erv/metrics.json"
)
# What the champion answers now: "PREFIX DIGEST RIGHT CONTENT" in control.txt, or that it fails.
EVALUATE = """
import sys
from pathlib import Path
from erv.settings import load_settings
from tests.unit.register.test_register import WORTH, predictions, write_evaluation

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert (Path(given["--policy"]) / "config.json").is_file(), "the policy itself is there"
with Path("asked.log").open("a") as stream:
    stream.write(given["--name"] + "\\n")
prefix, digest, right, *content = Path("control.txt").read_text().split(" ")
if right == "fail":
    sys.exit("error: no room on the GPU")
rows = predictions(int(right), int(right), prefix=prefix, content="".join(content))
panel = {"lexical": {"digest": digest, "worth": WORTH}}
folder = Path(given["--predictions"]).parent
settings = load_settings().evaluate.model_dump(include={"max_new_tokens", "temperature", "split"})
by = {"judge": {"digest": digest}, "judges": panel, "code": {"reading": "now", "figures": "now"}}
write_evaluation(folder, rows, **by, decoding=settings)
"""


def decoding() -> dict[str, object]:
    """How the stage `evaluate` says that it decoded."""
    return load_settings().evaluate.model_dump(include={"max_new_tokens", "temperature", "split"})


class Place:
    """A workspace with a candidate after another, and a registered model of its own."""

    def __init__(self, environment: Environment) -> None:
        self.environment, self.folder = environment, environment.workspace
        self.lineage = Verdict(LINEAGE, outcome="pass")  # of all versions
        write_text('{"model_type": "humanomni"}', self.folder / "policy/config.json")
        write_text("{}", self.folder / "verifier/verifier.json")
        write_text(EVALUATE, self.folder / "evaluate.py")

    def candidate(
        self,
        prefix: str,
        digest: str,
        right: int,
        agreeing: int = 55,
        content: str | None = "",
        code: str = "now",
        **serving: object,
    ) -> None:
        """Writes the bundle; without `content` its predictions are as those of an older erv."""
        panel = {"lexical": {"digest": digest, "worth": WORTH}}
        clips = {"prefix": prefix, "content": content or ""}
        mine, base = predictions(right, agreeing, **clips), predictions(40, 20, **clips)
        if content is None:
            mine, base = ([{**row, "sha256": None} for row in rows] for rows in (mine, base))
        for policy, rows in {"erv": mine, "r1_omni": base}.items():
            folder = self.folder / "eval" / policy
            by = {"judge": {"digest": digest}, "judges": panel, "code": {"reading": code, "figures": code}}
            write_evaluation(folder, rows, **by, decoding=decoding())
        compared = comparison_of(sft=base, r1_omni=base, erv=mine)
        write_text(json.dumps(compared), self.folder / "comparison.json")
        shutil.rmtree(self.folder / "candidate", ignore_errors=True)
        write_candidate(
            self.folder / "candidate",
            policy=self.folder / "policy",
            verifier=self.folder / "verifier",
            evaluations=self.folder / "eval",
            comparison=self.folder / "comparison.json",
            serving={**serving_settings(load_settings()), **serving},
            settings=load_settings().register_,
            seed=0,
        )
        self.lock(COMMAND)

    def lock(self, command: str) -> None:
        out = {"path": "candidate", "md5": content_digest(self.folder / "candidate")}
        stages = {"register": {"cmd": "write it", "outs": [out]}, "evaluate@erv": {"cmd": command}}
        write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}), self.folder / "dvc.lock")

    def publish(self) -> PublishResult:
        return publish(
            Path("candidate"),
            self.environment,
            load_settings(),
            by="test",
            lineage=lambda number: self.lineage,
        )

    def parameters(self, path: str, value: object) -> None:
        """Changes one parameter."""
        section, name = path.split(".")
        parameters = yaml.safe_load((self.folder / "params.yaml").read_text())
        parameters[section][name] = value
        write_text(yaml.safe_dump(parameters), self.folder / "params.yaml")

    def promote(self, number: str, **options: Any) -> str:
        options = {"lineage": lambda number: self.lineage, **options}
        return promote(number, self.environment, load_settings(), by="test", reason="test", **options)

    def rollback(self) -> str:
        return rollback(self.environment, load_settings(), by="test", lineage=lambda number: self.lineage)

    def asked(self) -> list[str]:
        path = self.folder / "asked.log"
        return path.read_text().split() if path.is_file() else []

    def against_champion(self, result: PublishResult) -> list[str]:
        return [verdict.text() for verdict in result.verdicts if verdict.against == "champion"]


@pytest.fixture
def place(stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Version 1 is champion: 50 of 60 clips are right."""
    monkeypatch.chdir(tmp_path)
    name = f"model-{uuid.uuid4().hex[:8]}"
    write_text((ROOT / "params.yaml").read_text().replace("emotion-policy", name), tmp_path / "params.yaml")
    environment = replace(stack, workspace=tmp_path, mlflow_experiment=name)
    isolate(environment)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    found = Place(environment)
    found.candidate("", "j", 50)
    assert found.publish().champion == "1"
    return found


@pytest.mark.slow
def test_it_is_evaluated_if_the_clips_or_the_judge_changed(place: Place) -> None:
    place.candidate("", "j", 52)
    assert place.publish().anew is None, "its kept answers compare"
    assert place.asked() == []
    champion = str(place.publish().champion)
    for prefix, digest in (("new", "j"), ("new", "other")):
        place.candidate(prefix, digest, 56)
        write_text(f"{prefix} {digest} 40", place.folder / "control.txt")
        result = place.publish()
        assert result.anew == champion
        assert (
            f"compared with version {champion}, which was evaluated on the present test clips"
            in "\n".join(result.lines())
        )
        assert all(text.startswith("pass: ") for text in place.against_champion(result))
        champion = str(result.champion)
        assert champion == result.version
    assert place.asked() == ["champion", "champion"]
    assert place.publish().new is False
    assert place.asked() == ["champion", "champion"], "against one champion gates are decided once"
    assert not list(place.environment.state.glob("champion-*")), "nothing is left behind"


@pytest.mark.slow
def test_it_is_evaluated_if_other_code_read_its_answers(place: Place) -> None:
    """After an edit of a judge, its kept readings counted as of the same judge."""
    place.candidate("", "j", 56, code="then")
    write_text(" j 40", place.folder / "control.txt")
    # No evaluation of now is like the candidate's.
    lines = place.against_champion(place.publish())
    assert all("other code, also after it was evaluated anew" in text for text in lines)
    place.promote("2", force=True)
    place.candidate("", "j", 57)
    result = place.publish()
    assert result.anew == "2"
    assert all(text.startswith("pass: ") for text in place.against_champion(result))


def test_it_is_evaluated_if_a_clip_holds_something_else_under_its_name(place: Place) -> None:
    """Ids and labels alone were compared."""
    place.candidate("", "j", 56, content="b")
    write_text(" j 40 b", place.folder / "control.txt")
    result = place.publish()
    assert (place.asked(), result.anew) == (["champion"], "1")
    assert all(text.startswith("pass: ") for text in place.against_champion(result))
    place.candidate("", "j", 57, content="c")
    place.lock("python evaluate.py")
    texts = place.against_champion(place.publish())
    assert all("the champion was not evaluated on the same clips" in text for text in texts), texts


@pytest.mark.slow
def test_it_is_not_evaluated_for_a_candidate_that_can_not_be_compared(place: Place) -> None:
    """It was, for predictions of an older erv, which lack the content of their clips."""
    place.candidate("", "j", 56, content=None)
    result = place.publish()
    assert (place.asked(), result.anew) == ([], None)
    for text in place.against_champion(result):
        assert "the candidate's predictions lack the content of their clips" in text


@pytest.mark.parametrize(
    ("path", "value"), [("evaluate.max_new_tokens", 77), ("validate.min_brightness", 9.5)]
)
@pytest.mark.slow
def test_it_is_evaluated_if_answers_may_be_longer_or_the_limits_changed(
    place: Place, path: str, value: object
) -> None:
    place.parameters(path, value)
    place.candidate("new", "j", 56)
    write_text("new j 40", place.folder / "control.txt")
    result = place.publish()
    assert all(text.startswith("pass: ") for text in place.against_champion(result))
    assert (place.asked(), result.anew, result.champion) == (["champion"], "1", "2")
    client = client_of(place.environment)
    run_id = client.get_model_version(result.name, "2").tags[PUBLISH_RUN_TAG]
    (kept,) = client.list_artifacts(run_id, "champion")
    copy = Path(client.download_artifacts(run_id, kept.path, str(place.folder)))
    digest = sha256_of(copy / "predictions.parquet")
    assert kept.path == f"champion/1-{digest[:12]}", "what the verdicts rest on"
    right = [row["predicted"] == row["label"] for row in read_predictions(copy / "predictions.parquet")]
    assert sum(right) == 40


@pytest.mark.slow
def test_other_serving_code_washes_no_gate_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = load_settings().register_.model_name
    place.candidate("", "j", 30)
    worse = place.publish()
    failed = [verdict.text() for verdict in worse.verdicts if not verdict.passed]
    assert any("WAR minus champion (version 1)" in text for text in failed)
    assert worse.champion == "1"
    place.promote("2", force=True)
    assert "champion in spite of " in "\n".join(place.publish().lines())
    with monkeypatch.context() as edited:
        edited.setattr(publishing, "serving_code", lambda bundle: "edited")
        again = place.publish()
    assert [verdict.text() for verdict in again.verdicts if not verdict.passed] == failed
    assert (again.version, again.champion, again.passed) == ("3", "3", False)
    last = reigns(client_of(place.environment), name)[-1]
    assert (last.version, last.how, list(last.forced)) == ("3", "serving code", failed)
    assert last.reason == "it has the same bundle as version 2"
    place.rollback()
    with monkeypatch.context() as edited:
        edited.setattr(publishing, "serving_code", lambda bundle: "edited")
        assert place.publish().champion == "2", "what a person decided stands"


@pytest.mark.slow
def test_a_bundle_of_before_is_compared_with_the_champion_of_now(place: Place) -> None:
    place.candidate("", "j", 60, 60)
    assert place.publish().champion == "2"
    with pytest.raises(
        RegistryError, match=r"compared with no champion, .* version 2 is champion now; `erv pub"
    ):
        place.promote("1")
    place.candidate("", "j", 50)
    back = place.publish()
    assert (back.version, back.new, back.champion, back.passed) == ("1", False, "2", False)
    assert any(
        text.startswith("fail: WAR minus champion (version 2)") for text in place.against_champion(back)
    )
    place.rollback()
    place.candidate("", "j", 60, 60)
    again = place.publish()
    assert (again.version, again.passed, again.champion) == ("2", True, "1")
    assert "`erv promote 2` makes it champion" in again.lines()[-1]
    assert "version 2 is now the champion" in place.promote("2")


def test_a_bundle_whose_version_was_deleted_comes_back_by_no_gate(place: Place) -> None:
    """Its new version was crowned, and the rollback undone: versions were told apart by numbers alone."""
    client, name = client_of(place.environment), load_settings().register_.model_name
    place.candidate("", "j", 60, 60)
    assert place.publish().champion == "2"
    place.rollback()
    client.delete_model_version(name, "2")
    again = place.publish()
    assert (again.version, again.new, again.passed, again.champion) == ("3", True, True, "1")
    assert "this bundle was champion before, and what was decided since stands" in again.lines()[-1]
    assert [reign.bundle != "" for reign in reigns(client, name)] == [True, True, True]
    # As an older erv noted them.
    model = client.get_registered_model(name)
    for tag in [tag for tag in model.tags if tag.startswith(TAG_PREFIX)]:
        noted = json.loads(model.tags[tag])
        bare = {key: value for key, value in noted.items() if key not in ("bundle", "code")}
        client.set_registered_model_tag(name, tag, json.dumps(bare))
    place.candidate("", "j", 60, 59)  # never champion, but who knows what version 2 had
    other = place.publish()
    assert (other.version, other.passed, other.champion) == ("4", True, "1")
    assert other.lines()[-1] == (
        "all gates hold, but this bundle may have been champion before, as version 2, of which only the"
        " number is known, and what was decided since stands: `erv promote 4` makes it champion"
    )
    bundles = [reign.bundle for reign in reigns(client, name)]
    client.delete_model_version(name, "1")
    assert [reign.bundle for reign in reigns(client, name)] == bundles, "noted while it was there"
    assert bundles[1] == ""


def test_verdicts_of_another_confidence_are_decided_again(place: Place) -> None:
    """They stood where all gates are on instruments or the champion: such a bundle stays the same."""
    gates = [
        {"metric": "verifier_f1", "minimum": 0.1},
        {"metric": "WAR", "against": "champion", "minimum": -0.05},
    ]
    place.parameters("register.gates", gates)
    place.candidate("", "j", 45)
    first = place.publish()
    (text,) = place.against_champion(first)
    assert "(95%)" in text
    place.parameters("register.confidence", 0.8)
    place.candidate("", "j", 45)
    again = place.publish()
    assert (first.version, again.version, again.new) == ("2", "2", False)
    (text,) = place.against_champion(again)
    assert "(80%)" in text
    narrower = [verdict for verdict in again.verdicts if verdict.against == "champion"]
    place.parameters("register.bootstrap_samples", 100)
    assert [v for v in place.publish().verdicts if v.against == "champion"] != narrower


@pytest.mark.slow
def test_what_could_not_be_told_for_a_moment_is_decided_again(place: Place) -> None:
    place.lineage = Verdict(LINEAGE, outcome="can't tell", reason="S3 is away")
    place.candidate("", "j", 60, 60)
    assert (place.publish().champion, place.publish().champion) == ("1", "1")
    place.lineage = Verdict(LINEAGE, outcome="pass")
    assert place.publish().champion == "2"
    place.lineage = Verdict(LINEAGE, outcome="fail", reason="1 broken")
    assert place.publish().passed is False


def test_answers_that_were_changed_in_the_store_decide_nothing(place: Place) -> None:
    """A candidate was measured against whatever the store had as the champion's answers."""
    environment = place.environment
    client, name = client_of(environment), load_settings().register_.model_name
    files = files_uri(client, client.get_model_version(name, "1"))
    path = urlsplit(files).path
    answers = f"s3://{environment.artifact_bucket}{path}/artifacts/candidate/predictions.parquet"
    store = open_store(environment)
    worse = place.folder / "worse.parquet"
    write_predictions(predictions(2, 2), worse)
    assert store.exists(answers)
    store.write(worse.read_bytes(), answers)
    place.candidate("", "j", 50, 50)
    result = place.publish()
    assert result.champion == "1"
    reason = "the registry has no answers of version 1, the champion, as they were registered, and can't be"
    assert all(reason in text for text in place.against_champion(result)), place.against_champion(result)


@pytest.mark.slow
def test_a_failed_evaluation_registers_nothing(place: Place) -> None:
    place.candidate("new", "j", 56)
    write_text("new j fail", place.folder / "control.txt")
    with pytest.raises(
        RegistryError, match="test clips failed: no room on the GPU; `erv publish` tries again"
    ):
        place.publish()
    name = load_settings().register_.model_name
    assert len(versions(client_of(place.environment), name)) == 1
    write_text("new j 56", place.folder / "control.txt")
    assert place.publish().anew == "1"


def _other_decoding(place: Place) -> None:
    place.candidate("new", "j", 56, size=2 * load_settings().extract.size)


def _no_command(place: Place) -> None:
    place.candidate("new", "j", 57)
    place.lock("python evaluate.py")


def _still_other_clips(place: Place) -> None:
    place.candidate("new", "j", 58)
    write_text("old j 56", place.folder / "control.txt")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (_other_decoding, "and can't be evaluated anew, as it sees clips that are decoded otherwise"),
        (_no_command, "and can't be evaluated anew, as dvc.lock has no command of evaluate@erv"),
        (_still_other_clips, "also after it was evaluated anew"),
    ],
)
@pytest.mark.slow
def test_where_it_cannot_be_compared_the_verdict_says_why(
    place: Place, prepare: Callable[[Place], None], reason: str
) -> None:
    prepare(place)
    result = place.publish()
    texts = place.against_champion(result)
    assert texts
    for text in texts:
        assert text.startswith("can't tell: ")
        assert f"the champion was not evaluated on the same clips, {reason}" in text
        assert "`erv promote --force --reason TEXT` decides without a comparison" in text
    assert result.champion == "1"

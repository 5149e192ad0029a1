"""A study from evaluated policies, in a workspace with real clips and a real DVC."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from erv.cli import command
from erv.errors import DataError, ErvError, EvaluationError, SettingsError
from erv.settings import load_settings
from erv.study.answers.opened import opened
from erv.study.contents import RATINGS
from erv.study.extend import extend, lacking
from erv.study.media import check_media
from erv.study.plan import Study, read_key, read_study
from erv.study.prepare import prepare
from tests.support.study_workspace import change_study, write_workspace

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("study") / "workspace", clips=18)


@pytest.fixture(scope="module")
def prepared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with the study `first`; its output is in `said.txt`."""
    folder = tmp_path_factory.mktemp("prepared") / "workspace"
    shutil.copytree(template, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(command, ["study", "prepare", "first"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        (folder / "said.txt").write_text(result.output)
        yield folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def copy(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared workspace that may be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def study(prepared: Path) -> Study:
    return read_study(prepared / "studies/first")


def test_it_says_what_it_made(prepared: Path, study: Study) -> None:
    said = (prepared / "said.txt").read_text()
    assert "policies: sft, erv; 8 of 18 clips" in said
    assert "3 raters per pair, as study.overlap says: 8 clips x 3 raters" in said
    assert f"wrote studies/first, plan {study.sha256}" in said


def test_the_plan_asks_what_the_settings_say(study: Study) -> None:
    roles = [(item.kind, item.role) for item in study.items]
    assert roles.count(("pair", "main")) == 8
    assert roles.count(("rating", "main")) == 16
    assert {role for _, role in roles} == {"main", "practice", "attention", "gold"}
    assert study.languages == ("en", "de")
    assert (study.design.overlap, study.design.rating_overlap, study.design.items_per_rater) == (3, 2, 6)


def test_the_key_tells_what_the_plan_hides(study: Study) -> None:
    key, plan = read_key(study), (study.folder / "study.json").read_text()
    assert set(key.policies) == {"sft", "erv"}
    predictions = Path("eval/sft/predictions.parquet").read_bytes()
    assert key.policies["sft"] == hashlib.sha256(predictions).hexdigest()
    for item in study.items:
        assert key.items[item.id].clip_id not in plan
    for name in ("sft", '"erv', "r1_omni", "mafw/"):
        assert name not in plan.replace('"space": "mafw"', "")


def test_the_clips_are_there_under_blinded_names(study: Study) -> None:
    check_media(study.folder / "media", study.media)
    assert {path.stem for path in (study.folder / "media").iterdir()} == set(study.media)
    assert {item.clip_id for item in study.items} == set(study.media)


def test_dvc_tracks_it_and_git_does_not(prepared: Path, study: Study) -> None:
    for name in ("study.json", "key.json", "media"):
        pinned = yaml.safe_load((study.folder / f"{name}.dvc").read_text())
        assert pinned["outs"][0]["path"] == name
    assert set((study.folder / ".gitignore").read_text().split()) == {"/study.json", "/key.json", "/media"}


def test_the_same_inputs_give_the_same_bytes_elsewhere(prepared: Path, workspace: Path) -> None:
    made = prepare("first", load_settings())
    assert made.new
    for path in sorted((prepared / "studies/first").rglob("*.*")):
        other = workspace / path.relative_to(prepared)
        assert other.read_bytes() == path.read_bytes(), path.name
    assert not prepare("first", load_settings()).new


def test_another_seed_is_another_study_and_overwrites_none(copy: Path) -> None:
    first = read_study(Path("studies/first"))
    raw = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(raw | {"seed": 102}))
    with pytest.raises(DataError, match=r"studies/first/study.json: is a study already"):
        prepare("first", load_settings())
    assert read_study(Path("studies/first")).sha256 == first.sha256
    assert [path.name for path in Path("studies").iterdir()] == ["first"], "nothing half-written is left"


def test_a_clip_that_cannot_be_shown_is_replaced_and_named(workspace: Path) -> None:
    from dataclasses import replace

    from erv.manifest import read_manifest, write_manifest

    change_study(workspace, gold=1)
    path = Path("data/manifest/mafw.parquet")
    rows = read_manifest(path)
    write_manifest([replace(row, media="frames") if row.clip_id < "00004" else row for row in rows], path)
    made = prepare("second", load_settings())
    assert "left out: 4 x folders of frames, which have neither sound nor pace" in made.said
    key = read_key(read_study(Path("studies/second")))
    assert {item.clip_id for item in key.items.values()}.isdisjoint({f"{n:05d}" for n in range(4)})
    assert key.left_out == {"folders of frames, which have neither sound nor pace": 4}


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"clips": 19}, SettingsError, "study.clips is 19, but only 18 clips"),
        ({"clips": 18}, SettingsError, "study.gold asks for 2 items, but 0 are possible"),
        ({"overlap": None}, SettingsError, "8 clips are too few to tell a preference of 0.6"),
        ({"languages": ["en", "fr"]}, SettingsError, "study.languages names 'fr'"),
        (
            {"policies": ["sft", "erv", "best"]},
            SettingsError,
            "study.policies names 'best', expected some of",
        ),
        ({"policies": ["erv"]}, SettingsError, "kinds has pair, but policies names only one"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(
    workspace: Path, changes: dict[str, object], error: type[ErvError], sentence: str
) -> None:
    change_study(workspace, **changes)
    with pytest.raises(error, match=re.escape(sentence)):
        prepare("first", load_settings())
    assert not Path("studies").exists() or not list(Path("studies").iterdir())


def test_a_study_without_pairs_needs_no_power(workspace: Path) -> None:
    change_study(workspace, kinds=["rating"], overlap=None, clips=5)
    made = prepare("first", load_settings())
    study = read_study(made.folder)
    assert {item.kind for item in study.items} == {"rating"}
    assert not any("per pair" in sentence for sentence in made.said)


def test_predictions_that_dvc_does_not_know_are_refused(workspace: Path) -> None:
    shutil.copy("eval/r1_omni/predictions.parquet", "eval/erv/predictions.parquet")
    with pytest.raises(EvaluationError, match=r"eval/erv/predictions.parquet: not the predictions"):
        prepare("first", load_settings())


@pytest.mark.parametrize("name", ["../up", "A", "", "a/b", "x" * 65])
def test_a_name_that_is_none_is_refused(workspace: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="a study can't be called"):
        prepare(name, load_settings())


@pytest.mark.parametrize("what", ["clip", "more", "key", "no key"])
def test_what_was_damaged_is_not_pinned_as_right(copy: Path, what: str) -> None:
    """A truncated clip was recorded, and `dvc checkout` then restored the broken one."""
    folder = Path("studies/first")
    study = read_study(folder)
    path, sentence = folder / "key.json", "not the key that belongs to the plan"
    if what == "key":
        path.write_text(path.read_text().replace('"seed": 101', '"seed": 102'))
    elif what == "no key":
        path.unlink()
        sentence = "not found; `dvc pull"
    elif what == "clip":
        path, sentence = study.clip_file(min(study.media)), "not the clip that the plan names"
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path, sentence = folder / "media/other.mp4", "no clip of the study"
        path.write_bytes(b"")
    before = {path.name: path.read_text() for path in folder.glob("*.dvc")}
    with pytest.raises(DataError, match=re.escape(f"{path}: {sentence}")):
        prepare("first", load_settings())
    assert {path.name: path.read_text() for path in folder.glob("*.dvc")} == before


def test_a_changed_clip_is_noticed(copy: Path) -> None:
    study = read_study(Path("studies/first"))
    path = study.clip_file(next(iter(study.media)))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=re.escape(f"{path}: not the clip that the plan names")):
        check_media(study.folder / "media", study.media)


def test_answers_that_are_not_to_count_get_slots(copy: Path) -> None:
    study = read_study(Path("studies/first"))
    with opened("first", copy) as (_, _, database):
        rater = database.enter(database.invite()[0].token)
        for number, item_id in enumerate(rater.items):
            item = study.item(item_id)
            value: dict[str, object] = {"emotion": "anger", "preferred": "tie"}
            if item.kind == "rating":
                value = {"emotion": "anger", "ratings": dict.fromkeys(RATINGS, 3)}
            database.add(rater, item_id, value, 1.0, f"key-number-{number}")
        database.complete(rater)
    run = CliRunner()
    nothing = run.invoke(command, ["study", "extend", "first"])
    assert isinstance(nothing.exception, DataError)
    assert "no item lacks raters" in str(nothing.exception)
    done = run.invoke(command, ["study", "extend", "first", "--without", rater.id], catch_exceptions=False)
    mains = {item for item in rater.items if study.item(item).role == "main"}
    assert f"1 more place for {len(mains)} items" in done.output
    extended = read_study(study.folder)
    assert extended.sha256 == study.sha256
    new = set(extended.assignments) - set(study.assignments)
    assert mains <= {item for slot in new for item in extended.assignments[slot]}
    unknown = run.invoke(command, ["study", "extend", "first", "--without", "nobody"])
    assert "has no rater 'nobody'" in str(unknown.exception)


def test_raters_who_dropped_out_are_replaced(copy: Path) -> None:
    study = read_study(Path("studies/first"))
    answered = {item.id: study.design.overlap for item in study.items}
    pair = next(item.id for item in study.items if (item.kind, item.role) == ("pair", "main"))
    missing = lacking(study, answered | {pair: 1}, {pair: 1})
    assert missing == {pair: 1}
    path = extend(study, read_key(study), missing)
    assert json.loads(path.read_text())["study"] == study.sha256
    assert path.with_name(f"{path.name}.dvc").is_file()
    extended = read_study(study.folder)
    (slot,) = set(extended.assignments) - set(study.assignments)
    assert pair in extended.assignments[slot]
    with pytest.raises(DataError, match="no item lacks raters"):
        extend(extended, read_key(extended), {})

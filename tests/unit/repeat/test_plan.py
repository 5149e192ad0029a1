"""Seeds and folds as they are written, and which of them can be run."""

import pytest

from erv.errors import EvaluationError, SettingsError
from erv.repeat.folds import pooled
from erv.repeat.plan import Repeat, named, numbers, plan
from erv.settings import load_settings
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("text", "expected"), [("101", (101,)), ("101,102", (101, 102)), ("1-3, 5,2", (1, 2, 3, 5))]
)
def test_numbers(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "-1", "1.5"])
def test_what_is_no_list_of_numbers(text):
    with pytest.raises(ValueError, match=r"neither a number nor a range|is empty"):
        numbers(text)


def test_every_seed_with_every_fold():
    settings = load_settings(ROOT / "params.yaml")
    found = plan((101, 102), (1, 5), settings)
    assert found == [Repeat(101, 1), Repeat(101, 5), Repeat(102, 1), Repeat(102, 5)]
    assert found[1].overrides == ("seed=101", "ingest.fold=5")
    assert [named(repeat.name) for repeat in found] == found
    assert named("something-else") is None
    assert plan((101,), (1,), settings, "0123abcd")[0].name == "repeat-s101-f1-0123abcd"
    assert named("repeat-s101-f1-0123abcd") == Repeat(101, 1, "0123abcd")
    with pytest.raises(SettingsError, match="fold 6 does not exist; expected 1 to 5"):
        plan((101,), (6,), settings)


def test_a_source_that_an_experiment_would_not_find_is_named():
    settings = load_settings(ROOT / "params.yaml")
    sources = settings.sources.model_copy(update={"mafw": "raw/mafw"})
    with pytest.raises(SettingsError, match=r"sources\.mafw is 'raw/mafw', a path relative"):
        plan((101,), (1,), settings.model_copy(update={"sources": sources}))


def fold(number, clips=("a", "b")):
    return {"erv": [{"dataset": "mafw", "clip_id": f"{number}{clip}"} for clip in clips]}


def test_folds_are_pooled_clip_by_clip():
    by_fold = {number: fold(number) for number in (5, 4, 3, 2, 1)}
    assert [row["clip_id"] for row in pooled(by_fold)["erv"]] == [
        f"{n}{c}" for n in range(1, 6) for c in "ab"
    ]
    with pytest.raises(EvaluationError, match="fold 2, 4 is missing"):
        pooled({number: fold(number) for number in (1, 3, 5)})
    with pytest.raises(EvaluationError, match="clip '1a' of mafw is in the test splits of folds 1 and 2"):
        pooled({**by_fold, 2: fold(1)})

"""Lists that contradict themselves, and what is said of them."""

from __future__ import annotations

import pytest

from erv.ingest.list_checks import structural
from erv.ingest.published import Published
from erv.ingest.readers.reading import Check, Expect, Listed

OFFICIAL = Published("its authors", 10, tested_once=True)


def listed(split: str, *clips: int) -> list[Listed]:
    return [Listed(f"{clip:05d}", split, "anger", "1", f"{split}.txt:{clip}") for clip in clips]


def folds(**changed: list[Listed]) -> dict[int, list[Listed]]:
    """Ten clips, two of them tested by each of five folds; `fold_2=…` for other lists of fold 2."""
    lists = {}
    for fold in range(1, 6):
        tested = (2 * fold - 1, 2 * fold)
        trained = [clip for clip in range(1, 11) if clip not in tested]
        lists[fold] = changed.get(f"fold_{fold}", listed("train", *trained) + listed("test", *tested))
    return lists


def failed(
    lists: dict[int, list[Listed]], expect: Expect, published: Published | None, fold: int = 2
) -> dict[str, Check]:
    return {check.name: check for check in structural(lists, published, expect, fold) if not check.success}


@pytest.mark.parametrize("expect", ["full", "subset"])
def test_sound_lists(expect: Expect) -> None:
    assert failed(folds(), expect, OFFICIAL) == {}
    assert failed(folds(), expect, None) == {}


@pytest.mark.parametrize("expect", ["full", "subset"])
@pytest.mark.parametrize(("split", "empty"), [("test", "train"), ("train", "test")])
def test_an_empty_list_of_an_official_fold_is_an_error(expect: Expect, split: str, empty: str) -> None:
    found = failed(folds(fold_2=listed(split, *range(1, 11))), expect, OFFICIAL)
    check = found["lists_filled"]
    assert check.severity == "error"
    assert check.sentence().startswith(f"the {empty} list of fold 2 is empty; expected clips in the train")
    # Nothing is exchanged: a list is missing.
    assert "test_smaller_than_train" not in found
    assert all("exchanged" not in item.hint for item in found.values())
    if empty == "train":
        assert found["one_test_fold"].hint.startswith("the train list of fold 2 is empty: ")


def test_an_empty_list_of_another_fold_is_a_warning_of_a_subset() -> None:
    lists = folds(fold_4=listed("train", *range(1, 11)))
    assert failed(lists, "subset", OFFICIAL)["lists_filled"].severity == "warning"
    assert failed(lists, "full", OFFICIAL)["lists_filled"].severity == "error"


def test_exchanged_lists_are_reported() -> None:
    found = failed(
        folds(fold_2=listed("test", 1, 2, 5, 6, 7, 8, 9) + listed("train", 3, 4)), "full", OFFICIAL
    )
    assert found["one_test_fold"].hint == "train and test of fold 2 seem to be exchanged"
    assert found["test_smaller_than_train"].hint == "the train and the test list seem to be exchanged"


@pytest.mark.parametrize(
    ("published", "hint"),
    [(None, "fix the table"), (OFFICIAL, "use the official files as they were delivered")],
)
def test_only_official_files_should_be_fetched_again(published: Published | None, hint: str) -> None:
    found = failed(folds(fold_1=listed("test", 1, 1) + listed("train", 1, *range(2, 11))), "full", published)
    assert found["listed_once"].found.startswith("1 clip is listed twice")
    assert found["listed_once"].hint == hint
    assert found["splits_apart"].found.startswith("1 clip is in two splits")
    assert found["splits_apart"].hint.endswith(hint)
    assert ("may belong to different folds" in found["splits_apart"].hint) == (published is not None)


def test_one_clip_and_several() -> None:
    one = failed(folds(fold_1=listed("train", *range(4, 11)) + listed("test", 1, 2)), "full", OFFICIAL)
    assert one["same_clips"].found == "fold 1 lacks 1 clip: 00003"
    two = failed(folds(fold_1=listed("train", *range(5, 11)) + listed("test", 1, 2)), "full", OFFICIAL)
    assert two["same_clips"].found.startswith("fold 1 lacks 2 clips: ")
    never = failed(folds(fold_1=listed("train", *range(2, 11)) + listed("test", 1)), "full", OFFICIAL)
    assert never["some_test_fold"].found == "1 clip is in no test list: 00002"

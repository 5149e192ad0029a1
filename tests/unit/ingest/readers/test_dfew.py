import shutil

import pytest
from openpyxl import load_workbook

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

SHARE = 0.01
KINDS = ("original", "avi", "frames", "frames_16")


def settings(media="original", fold=1, expect="subset"):
    return IngestSettings(
        fold=fold,
        validation_share=0.1,
        expect=expect,
        max_excluded_share=0.0,
        readers={"dfew": {"reader": "dfew", "media": media}},
    )


def lock_of(root, media="original"):
    return pin("dfew", str(root), None, selection=selection_of(settings(media).readers["dfew"]))


def read(root, media="original", **changes):
    return ingest("dfew", lock_of(root, media), None, settings(media, **changes), seed=0)


def failed(result):
    return {c.name: c for c in result.checks if not c.success and not c.name.startswith("published_")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("dfew")
    trees.write_dfew(root, SHARE, media=KINDS)
    return root


@pytest.fixture
def tree(built, tmp_path):
    return shutil.copytree(built, tmp_path / "tree")


@pytest.mark.parametrize("fold", range(1, 6))
@pytest.mark.parametrize("media", KINDS)
def test_every_kind_of_media_and_fold(built, media, fold):
    result = read(built, media, fold=fold)
    assert not failed(result)
    said = (built / f"EmoLabel_DataSplit/test(single-labeled)/set_{fold}.csv").read_text().splitlines()[1:]
    assert [f"{row.clip_id},{row.raw_label}" for row in result.rows if row.split == "test"] == sorted(
        said, key=lambda line: line.split(",")[0]
    )
    row = result.rows[0]
    name = {"original": f"/original/{row.clip_id}.mp4", "avi": f"_avi/{int(row.clip_id):05d}.avi"}.get(
        media, f"/{int(row.clip_id):05d}/"
    )
    assert row.uri.endswith(name)
    assert {row.media for row in result.rows} == {"frames" if media.startswith("frames") else "video"}
    assert len(result.unlisted) == len(read(built).unlisted)


@pytest.mark.parametrize("media", ["original", "frames"])
@pytest.mark.parametrize("zipped", [False, True])
def test_layout_b(built, tmp_path, media, zipped):
    trees.write_dfew(tmp_path / "x/b", SHARE, layout="B", media=[media], zipped=zipped)
    result, official = read(tmp_path, media), read(built, media)
    assert not failed(result)
    assert [(r.clip_id, r.split, r.label, r.sha256) for r in result.rows if media == "original"] == [
        (r.clip_id, r.split, r.label, r.sha256) for r in official.rows if media == "original"
    ]
    assert [(r.clip_id, r.split, r.label, r.media) for r in result.rows] == [
        (r.clip_id, r.split, r.label, r.media) for r in official.rows
    ]
    assert result.rows[0].label_from.startswith("x/b/label/single_")


@pytest.mark.parametrize("media", KINDS)
def test_media_in_zips_as_delivered(built, tmp_path, media):
    trees.write_dfew(tmp_path, SHARE, media=KINDS, zipped=True)
    result = read(tmp_path, media)
    assert not failed(result)
    assert [(r.clip_id, r.sha256) for r in result.rows] == [
        (r.clip_id, r.sha256) for r in read(built, media).rows
    ]


def test_only_the_chosen_media_are_pinned(built):
    lock = lock_of(built, "avi")
    media = [file.path for file in lock.files if file.path.startswith("Clip/")]
    assert sum(path.endswith(".avi") for path in media) == len(media) - 3
    assert {path for path in media if not path.endswith(".avi")} == {
        "Clip/original/1.mp4",
        "Clip/clip_224x224/00001",
        "Clip/clip_224x224_16f/00001",
    }


@pytest.mark.parametrize("wanted", KINDS)
def test_a_wrong_media_says_which_would_fit(tmp_path, wanted):
    other = "avi" if wanted != "avi" else "frames_16"
    trees.write_dfew(tmp_path, SHARE, media=[other])
    with pytest.raises(DataError, match=rf"source has `{other}`: set ingest\.readers\.dfew\.media to that"):
        read(tmp_path, wanted)


def test_frames_alone_have_no_sound(tmp_path):
    trees.write_dfew(tmp_path, SHARE, media=["frames"])
    with pytest.raises(DataError, match=r"no video below .*`frames`.*frames have no sound"):
        read(tmp_path)


def test_a_lock_of_other_media_is_not_taken_for_a_set_of_one_clip(built):
    with pytest.raises(DataError, match=r"pinned with other settings than ingest\.readers\.dfew has now"):
        ingest("dfew", lock_of(built, "avi"), None, settings("original"), seed=0)


def test_the_same_clip_under_two_names_is_refused(tree):
    shutil.copy(tree / "Clip/original/1.mp4", tree / "Clip/original/00001.mp4")
    with pytest.raises(DataError, match=r"'Clip/original/00001\.mp4' and .*1\.mp4' are the same clip"):
        read(tree)


def rewrite(tree, change, split="train", fold=1):
    path = tree / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv"
    lines = path.read_text().splitlines()
    path.write_bytes(change(lines))


def joined(lines, newline="\n"):
    return newline.join(lines).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: b"\xef\xbb\xbf" + joined(lines),
        lambda lines: joined(lines, "\r\n"),
        lambda lines: joined([lines[0], *(f" {line} " for line in lines[1:]), "", ""]),
        lambda lines: joined([f"{lines[0]},note", *(f'{line},"a, b"' for line in lines[1:])]),
    ],
)
def test_csv_as_people_save_it(built, tree, change):
    rewrite(tree, change)
    plain = read(built).rows
    assert [(r.clip_id, r.label, r.label_from) for r in read(tree).rows] == [
        (r.clip_id, r.label, r.label_from) for r in plain
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: joined(lines[1:]), r"no column 'video_name' in its first line; found \d+, \d"),
        (lambda lines: joined(["video_name,label,label", *lines[1:]]), "column 'label' appears twice"),
        (lambda lines: joined([*lines, "12"]), r"line \d+: 1 cells, expected 2 \(video_name, label\)"),
        (lambda lines: joined([*lines, "12,3,4"]), r"line \d+: 3 cells, expected 2"),
        (
            lambda lines: joined([*lines, "12,happy"]),
            r"'happy' is not a label id of 1\.\.7; .*1 happy, 2 s",
        ),
        (lambda lines: joined([*lines, "12,8"]), r"label id 8 is not in dfew's range 1\.\.7"),
        (lambda lines: joined([*lines, "12.mp4,1"]), r"'12\.mp4' is not a clip number"),
        (lambda lines: joined(lines).decode().encode("utf-16"), "not UTF-8"),
        (lambda lines: b"", "is empty, expected a first line"),
        (lambda lines: joined([*lines, '"12,1']), r"line \d+: not CSV"),
        (lambda lines: joined([*lines, lines[1]]), r"listed twice in the same split: .*csv:2 and "),
    ],
)
def test_a_mislabelled_csv_is_one_sentence(tree, change, message):
    rewrite(tree, change)
    with pytest.raises(DataError, match=message) as caught:
        read(tree)
    assert "\n" not in str(caught.value)


def sheet(tree, change):
    path = tree / "Annotation/annotation.xlsx"
    book = load_workbook(path)
    change(book.active)
    book.save(path)


def test_a_sheet_with_other_labels_is_refused(tree):
    def shift(cells):
        for row in cells.iter_rows(min_row=2):
            row[8].value = row[8].value % 7 + 1 if row[8].value else 0

    sheet(tree, shift)
    with pytest.raises(DataError, match=r"label ids do not agree .*\(happy in the lists, sad in the sheet"):
        read(tree)


def test_a_listed_clip_that_the_sheet_calls_mixed_is_refused(tree):
    sheet(tree, lambda cells: setattr(cells.cell(2, 9), "value", 0))
    with pytest.raises(DataError, match=r"1 \(happy in the lists, not single-labelled in the sheet: .*set_"):
        read(tree)


def test_vote_columns_say_how_a_sheet_is_numbered(tree):
    sheet(tree, lambda cells: setattr(cells.cell(1, 1), "value", "1angry"))
    with pytest.raises(DataError, match="column '1angry' numbers angry 1, expected 4"):
        read(tree)


def test_a_sheet_is_not_needed(tree):
    shutil.rmtree(tree / "Annotation")
    assert not failed(read(tree))


def test_mafw_given_as_dfew(tmp_path):
    trees.write_mafw(tmp_path, 0.001)
    with pytest.raises(DataError, match=r"holds MAFW, expected DFEW .*set sources\.dfew to the folder"):
        read(tmp_path)


def test_a_fold_that_the_lists_do_not_have_is_said_before_anything_is_read(built):
    with pytest.raises(DataError, match=r"^dfew: ingest.fold is 6; its official lists have folds 1 to 5"):
        read(built, fold=6)


def test_both_layouts_in_one_tree(tree):
    """The same lists twice are one; other ones are a mixture of two sources."""
    (tree / "label").mkdir(exist_ok=True)
    for fold in range(1, 6):
        for split in ("train", "test"):
            shutil.copy(
                tree / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv",
                tree / f"label/single_{split}set_{fold}.csv",
            )
    rows = read(tree).rows
    assert {row.label_from.partition("/")[0] for row in rows} == {"EmoLabel_DataSplit"}
    path = tree / "label/single_testset_3.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(
        DataError, match=r"set_3\.csv' and 'label/single_testset_3\.csv' in .* list other clips"
    ):
        read(tree)


def renumbered(tree, change, folds=range(1, 6), splits=("train", "test")):
    """Changes the label ids of lists; clips whose changed id is None go."""
    for fold in folds:
        for split in splits:
            path = tree / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv"
            header, *lines = path.read_text().splitlines()
            pairs = [(clip, change(int(label))) for clip, label in (line.split(",") for line in lines)]
            kept = [f"{clip},{label}" for clip, label in pairs if label is not None]
            path.write_text("\n".join([header, *kept]) + "\n")


def zero_based_without_the_first(label):
    return label - 1 or None


BOTH = r"set_1\.csv: its label ids are 1\.\.6, so it may count from 1 or from 0: 1 may mean happy or sad"


def test_ids_that_fit_two_numberings_are_refused(tree):
    (tree / "Annotation/annotation.xlsx").unlink()
    renumbered(tree, zero_based_without_the_first)
    with pytest.raises(DataError, match=BOTH):
        read(tree)


def test_ids_of_one_list_that_fit_two_numberings_are_refused(tree):
    """Nothing else in the tree names its clips."""
    (tree / "Annotation/annotation.xlsx").unlink()
    for fold in range(2, 6):
        for split in ("train", "test"):
            (tree / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv").unlink()
    assert read(tree).rows
    renumbered(tree, zero_based_without_the_first, [1], ["test"])
    with pytest.raises(DataError, match=rf"test\(single-labeled\)/{BOTH}"):
        read(tree)


def test_other_lists_settle_how_a_list_is_numbered(tree):
    (tree / "Annotation/annotation.xlsx").unlink()
    renumbered(tree, lambda label: label if label < 7 else None, [1], ["test"])
    assert read(tree).rows
    renumbered(tree, zero_based_without_the_first, [1], ["test"])
    with pytest.raises(DataError, match=r"labelled differently in different folds"):
        read(tree)


def test_a_sheet_settles_how_the_lists_are_numbered(tree):
    renumbered(tree, lambda label: label if label < 7 else None)
    assert read(tree).rows
    renumbered(tree, zero_based_without_the_first)
    with pytest.raises(DataError, match=r"label ids do not agree with the split files"):
        read(tree)


def test_a_sheet_of_the_same_numbering_settles_nothing(tree):
    """Its vote columns have other names, and it counts from 0 like the lists."""
    renumbered(tree, zero_based_without_the_first)

    def change(cells):
        for column in range(1, 8):
            cells.cell(1, column).value = f"votes {column}"
        for row in cells.iter_rows(min_row=2):
            row[8].value = max(0, row[8].value - 1)

    sheet(tree, change)
    with pytest.raises(DataError, match=BOTH):
        read(tree)


@pytest.mark.parametrize("cells", [("12.5", 1), (3, "happy"), ("x", None)])
def test_a_cell_that_is_no_number_is_refused(tree, cells):
    def change(page):
        page.cell(4, 8).value, page.cell(4, 9).value = cells

    sheet(tree, change)
    with pytest.raises(
        DataError, match=r"annotation\.xlsx, row 4: order .* are not a clip number and a label"
    ):
        read(tree)


def test_numbers_as_text_are_numbers(tree):
    def change(page):
        for row in page.iter_rows(min_row=2):
            row[7].value, row[8].value = f"{row[7].value}.0", f"{row[8].value}.0"

    sheet(tree, change)
    assert not failed(read(tree))
    sheet(tree, lambda page: setattr(page.cell(2, 9), "value", "2.0"))
    with pytest.raises(DataError, match=r"1 \(happy in the lists, sad in the sheet: .*csv:2, .*xlsx#row2\)"):
        read(tree)


def test_a_sheet_that_gives_a_clip_two_labels_is_refused(tree):
    sheet(tree, lambda page: page.append([*[0] * 7, 1, 2]))
    with pytest.raises(DataError, match=r"row \d+: clip 1 is sad here and happy in .*xlsx#row2; use the"):
        read(tree)


def test_a_second_sheet_that_contradicts_is_refused(tree):
    shutil.copy(tree / "Annotation/annotation.xlsx", tree / "annotation.xlsx")
    assert not failed(read(tree))
    book = load_workbook(tree / "annotation.xlsx")
    book.active.cell(2, 9).value = 3
    book.save(tree / "annotation.xlsx")
    with pytest.raises(
        DataError, match=r"1 \(happy in the lists, neutral in the sheet: .* annotation\.xlsx#row2"
    ):
        read(tree)


def test_a_superscript_is_no_clip_number(tree):
    """`"²".isdigit()` is true, and `int("²")` fails."""
    (tree / "label").mkdir()
    for split in ("train", "test"):
        source = tree / f"EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv"
        shutil.copy(source, tree / f"label/single_{split}set_1.csv")
    rewrite(tree, lambda lines: joined([*lines, "²,1"]))
    with pytest.raises(DataError, match="'²' is not a clip number"):
        read(tree)

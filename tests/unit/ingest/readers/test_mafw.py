import re
import shutil
import zipfile

import pytest
from openpyxl import load_workbook

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.labels import LabelSpace
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

LISTS = "Train & Test Set"
SHARE = 0.01


def settings(listing="no_caption", fold=1, expect="subset", **changes):
    readers = {
        name: {"reader": "mafw", "set": kind, "listing": listing}
        for name, kind in (("mafw", "single"), ("mafw_compound", "compound"))
    }
    return IngestSettings(
        **{
            "fold": fold,
            "validation_share": 0.1,
            "expect": expect,
            "max_excluded_share": 0.0,
            "readers": {**readers, "dfew": {"reader": "dfew", "media": "original"}},
            **changes,
        }
    )


def read(root, name="mafw", **changes):
    chosen = settings(**changes)
    lock = pin(name, str(root), None, selection=selection_of(chosen.readers[name]))
    return ingest(name, lock, None, chosen, seed=0)


def failed(result):
    """Failed checks but those of the published counts, which no small tree meets."""
    return {c.name: c for c in result.checks if not c.success and not c.name.startswith("published_")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("mafw")
    trees.write_mafw(root, SHARE)
    return root


@pytest.fixture
def tree(built, tmp_path):
    return shutil.copytree(built, tmp_path / "tree")


@pytest.mark.parametrize("name", ["mafw", "mafw_compound"])
@pytest.mark.parametrize("listing", ["no_caption", "with_caption"])
@pytest.mark.parametrize("fold", range(1, 6))
def test_every_set_listing_and_fold(built, name, listing, fold):
    result = read(built, name, listing=listing, fold=fold)
    assert not failed(result)
    kind = {"mafw": "single", "mafw_compound": "compound"}[name]
    for split in ("train", "test"):
        path = built / LISTS / kind / listing / f"set_{fold}" / f"{split}.txt"
        encoding = "gb18030" if listing == "with_caption" else "ascii"
        said = [line.replace("\t", " ").split()[:2] for line in path.read_text(encoding).splitlines()]
        splits = ("train", "validation") if split == "train" else ("test",)
        rows = {(f"{row.clip_id}.mp4", row.raw_label) for row in result.rows if row.split in splits}
        assert rows == set(map(tuple, said))
    assert {row.fold for row in result.rows} == {fold}
    assert {row.label for row in result.rows} <= set(LabelSpace.load(name).names)
    assert all((row.caption is None) == (row.label == "neutral") for row in result.rows)
    assert ("neutral" in {row.label for row in result.rows}) == (listing == "no_caption")
    assert sorted(result.folds) == [1, 2, 3, 4, 5]


def test_parts_of_a_compound_label_are_put_in_the_order_of_their_ids(tree):
    for path in (tree / LISTS / "compound").rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"anger_disgust\r", b"disgust_anger\r"))
    rows = read(tree, "mafw_compound").rows
    turned = [row for row in rows if row.raw_label == "disgust_anger"]
    assert turned
    assert {row.label for row in turned} == {"anger_disgust"}


@pytest.mark.parametrize("way", ["zip", "clips", "zip of clips", "lf and tabs", "nested", "underscores"])
def test_other_ways_to_deliver_the_same(built, tmp_path, way):
    root = tmp_path / "tree"
    options = {
        "zip": {"zipped": True},
        "clips": {"clips": "clips"},
        "zip of clips": {"clips": "clips", "zipped": True},
        "lf and tabs": {"newline": "\n"},
        "underscores": {"underscores": True},
    }.get(way, {})
    trees.write_mafw(root / "MAFW/official" if way == "nested" else root, SHARE, **options)
    if way == "lf and tabs":
        for path in (root / LISTS / "single/no_caption").rglob("*.txt"):
            path.write_bytes(path.read_bytes().replace(b" ", b"\t"))
    result, plain = read(root), read(built)
    assert not failed(result)
    assert [(r.clip_id, r.split, r.label, r.caption, r.sha256) for r in result.rows] == [
        (r.clip_id, r.split, r.label, r.caption, r.sha256) for r in plain.rows
    ]
    sizes = {c.name: c.found for c in result.checks}["published_sheets"]
    assert sizes == {c.name: c.found for c in plain.checks}["published_sheets"]
    if way == "nested":
        assert {c.name: c.found for c in result.checks}["root"] == "its tree begins at 'MAFW/official/'"
        assert result.rows[0].label_from.startswith("MAFW/official/Train & Test Set/")


def test_the_whole_tree_in_one_zip_with_a_top_folder(built, tmp_path):
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source/MAFW.zip", "w") as archive:
        for path in sorted(built.rglob("*")):
            if path.is_file():
                archive.write(path, f"MAFW/{path.relative_to(built)}")
    result = read(tmp_path / "source")
    assert not failed(result)
    assert [row.sha256 for row in result.rows] == [row.sha256 for row in read(built).rows]


def test_captions_come_from_the_sheet_where_no_list_has_them_and_its_first_row_is_a_clip(built, tree):
    official = {row.clip_id: row.caption for row in read(built).rows}
    for kind in ("single", "compound"):
        shutil.rmtree(tree / LISTS / kind / "with_caption")
    result = read(tree)
    assert {row.clip_id: row.caption for row in result.rows} == official
    assert "Labels/descriptive_text.xlsx#row1" in {row.caption_from for row in result.rows}
    (tree / "Labels/descriptive_text.xlsx").unlink()
    result = read(tree)
    assert {row.caption for row in result.rows} == {None}
    assert "have no caption" in failed(result)["captions"].found


def test_captions_saved_again_as_utf8_are_read_as_such_and_noted(built, tree):
    for path in (tree / LISTS).rglob("with_caption/*/*.txt"):
        path.write_bytes(path.read_bytes().decode("gb18030").encode())
    result = read(tree)
    assert [row.caption for row in result.rows] == [row.caption for row in read(built).rows]
    assert "is in UTF-8 and was read as such" in failed(result)["caption_encoding"].found


def test_clips_that_annotators_flagged_are_counted(tree):
    path = tree / "Labels/annotation.xlsx"
    book = load_workbook(path)
    book.active.cell(2, 2).value, book.active.cell(3, 2).value = -1, 0.93
    book.save(path)
    check = failed(read(tree))["flagged_invalid"]
    assert (check.severity, check.clips) == ("warning", ("00019", book.active.cell(3, 1).value[:5]))


def test_formulas_and_empty_cells_of_a_sheet(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    book.active.cell(2, 13).value = "=1+1"  # never computed: openpyxl stores no value
    book.active.cell(3, 13).value = None
    book.save(path)
    check = failed(read(tree))["sheet_clips"]
    assert len(check.clips) == 2
    assert "no label for 2 of" in check.found


@pytest.mark.parametrize(
    ("sheet", "damage", "message"),
    [
        (
            "single-set",
            lambda data: data[: len(data) // 2],
            r"single-set\.xlsx: .*(damaged|not a zip)",
        ),
        ("annotation", lambda data: b"clip,invalid\n00019.mp4,0\n", r"Labels/annotation\.xlsx: .*zip"),
        ("single-set", lambda data: b"", r"Labels/single-set\.xlsx: "),
    ],
)
def test_a_damaged_workbook_is_one_sentence(tree, sheet, damage, message):
    path = tree / f"Labels/{sheet}.xlsx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        read(tree)
    assert "\n" not in str(caught.value)


def test_a_workbook_without_its_sheet_is_one_sentence(tree):
    path = tree / "Labels/single-set.xlsx"
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in parts.items():
            target.writestr(name, content[:200] if "worksheets" in name else content)
    with pytest.raises(DataError, match=r"single-set\.xlsx: not a readable \.xlsx workbook"):
        read(tree)


def test_a_sheet_without_its_header_is_refused(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    book.active.delete_rows(1)
    book.save(path)
    with pytest.raises(DataError, match=r"no column 'single_label' in its first row; found 00019\.mp4"):
        read(tree)


def test_an_id_out_of_range_names_its_row(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    book.active.cell(4, 13).value = 0
    book.save(path)
    with pytest.raises(DataError, match=r"set\.xlsx, row 4: label id 0 is not in mafw's range 1\.\.11"):
        read(tree)


def test_a_compound_sheet_that_disagrees_is_refused(tree):
    path = tree / "Labels/multi-set.xlsx"
    book = load_workbook(path)
    clip = book.active.cell(2, 1).value[:5]
    book.active.cell(2, 13).value = "5,11"
    book.save(path)
    with pytest.raises(DataError, match=rf"multi-set\.xlsx: label ids do not agree.*{clip} .*neutral_disapp"):
        read(tree, "mafw_compound")


def test_train_and_test_exchanged_in_one_fold(tree):
    folder = tree / LISTS / "single/no_caption/set_2"
    (folder / "train.txt").rename(folder / "x.txt")
    (folder / "test.txt").rename(folder / "train.txt")
    (folder / "x.txt").rename(folder / "test.txt")
    with pytest.raises(DataError, match=r"several folds.*train and test of fold 2 seem to be exchanged"):
        read(tree)


def test_a_copied_fold_is_refused(tree):
    folder = tree / LISTS / "single/no_caption"
    shutil.rmtree(folder / "set_3")
    shutil.copytree(folder / "set_1", folder / "set_3")
    with pytest.raises(DataError, match="folds 1 and 3 have the same test list: one is a copy"):
        read(tree)


def test_exchanged_folds_show_against_the_captioned_lists(tree):
    folder = tree / LISTS / "single/no_caption"
    for old, new in (("set_1", "x"), ("set_2", "set_1"), ("x", "set_2")):
        (folder / old).rename(folder / new)
    check = failed(read(tree))["captioned_list"]
    assert check.severity == "warning"
    assert "may be exchanged" in check.hint


def test_lists_of_two_folds_in_one_folder(tree):
    folder = tree / LISTS / "single/no_caption"
    shutil.copy(folder / "set_2/test.txt", folder / "set_1/test.txt")
    with pytest.raises(DataError, match=r"in both train and test of fold 1.*different folds"):
        read(tree)


def test_half_a_fold_is_refused(tree):
    (tree / LISTS / "single/no_caption/set_4/test.txt").unlink()
    with pytest.raises(DataError, match=r"test split of fold 4 not found in .*set_4/test\.txt'"):
        read(tree)


def test_a_label_that_changes_between_folds_is_refused(tree):
    path = tree / LISTS / "single/no_caption/set_5/train.txt"
    first = path.read_text().split()
    path.write_text(path.read_text().replace(first[1], "contempt", 1))
    with pytest.raises(DataError, match=rf"1 clip is labelled .* in different folds: {first[0][:5]}"):
        read(tree)


def test_a_compound_list_in_the_single_label_space(tree):
    shutil.rmtree(tree / LISTS / "single")
    (tree / LISTS / "compound").rename(tree / LISTS / "single")
    with pytest.raises(DataError, match=r"with a label of mafw: anger, "):
        read(tree)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda r: trees.write_dfew(r, 0.001), r"holds DFEW, expected MAFW .*`reader: dfew`"),
        (lambda r: trees.write_ravdess(r, actors=[1]), r"holds RAVDESS, expected MAFW .*set sources\.mafw"),
        (
            lambda r: [trees.write_mafw(r / name, 0.001) for name in ("a", "b")],
            r"holds 2 trees of MAFW: a/, b/; set sources\.mafw to the one",
        ),
        (
            lambda r: trees.write_videos(r / "films", ["one"]),
            r"no tree of MAFW in .*expected `Train & Test Set/single/.*found at its top films/; set"
            r" sources\.mafw to the folder that holds `Train & Test Set`",
        ),
    ],
)
def test_a_wrong_root_says_what_was_found_and_what_to_do(tmp_path, build, message):
    build(tmp_path / "source")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "source")


def test_a_root_too_deep_says_so(built):
    with pytest.raises(DataError, match=r"no tree of MAFW.*found at its top compound/, single/"):
        read(built / LISTS)


def test_clips_in_another_folder_are_pointed_at(tree):
    (tree / "data/clips").rename(tree / "videos")
    with pytest.raises(DataError, match=r"expected `data/clips/NNNNN\.mp4`.*found such clips in videos"):
        read(tree)


def test_frames_and_automatic_labels_are_not_pinned(built):
    skipped = selection_of(settings().readers["mafw"])
    for path in ("data/frames/00019/1.png", "data/frames.zip", "Labels(auto)/gender.txt"):
        assert skipped.kind(path) == "skipped"
    for path in ("data/clips/00019.mp4", "data/clips.zip", "Labels/single-set.xlsx"):
        assert skipped.kind(path) == "file"


def test_a_fold_that_the_lists_do_not_have_is_said_before_anything_is_read(built):
    with pytest.raises(DataError, match=r"^mafw: ingest.fold is 6; its official lists have folds 1 to 5"):
        read(built, fold=6)


def move_to_test(tree, kind, fold):
    """Moves the first clip of a fold's train list into its test list; returns its id."""
    folder = tree / LISTS / kind / "no_caption" / f"set_{fold}"
    first, *rest = (folder / "train.txt").read_bytes().splitlines(keepends=True)
    (folder / "train.txt").write_bytes(b"".join(rest))
    (folder / "test.txt").write_bytes((folder / "test.txt").read_bytes() + first)
    return first.decode()[:5]


def test_a_clip_that_is_tested_twice(tree):
    """Refused in the single set, of which it is known that this does not happen."""
    clip = move_to_test(tree, "compound", 1)
    check = failed(read(tree, "mafw_compound"))["one_test_fold"]
    assert (check.severity, check.clips) == ("warning", (clip,))
    clip = move_to_test(tree, "single", 1)
    with pytest.raises(DataError, match=rf"1 clip is in the test lists of several folds: {clip}"):
        read(tree)


def test_a_compound_clip_that_the_lists_call_single_is_refused(tree):
    book = load_workbook(tree / "Labels/multi-set.xlsx")
    clip = book.active.cell(2, 1).value[:5]
    for path in (tree / LISTS / "compound/no_caption").rglob("*.txt"):
        path.write_bytes(re.sub(rb"(%s\.mp4 \w+?)_\w+" % clip.encode(), rb"\1", path.read_bytes()))
    with pytest.raises(DataError, match=rf"multi-set\.xlsx: label ids do not agree.* 1 clips, {clip} "):
        read(tree, "mafw_compound")


def test_a_sheet_that_names_a_clip_twice_is_refused(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    row = [cell.value for cell in book.active[2]]
    book.active.append([*row[:-1], row[-1] % 11 + 1])
    book.save(path)
    with pytest.raises(DataError, match=rf"set\.xlsx, row \d+: clip {row[0][:5]} is .* in an earlier row"):
        read(tree)


def test_a_sheet_that_claims_millions_of_rows_is_refused(tree):
    path = tree / "Labels/annotation.xlsx"
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = sheet.replace(b'<row r="3"', b'<row r="300000000"')
    assert parts["xl/worksheets/sheet1.xml"] != sheet
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in parts.items():
            book.writestr(name, content)
    with pytest.raises(DataError, match=r"annotation\.xlsx: claims more than 100000 rows"):
        read(tree)


def test_a_byte_order_mark_is_no_part_of_a_list(built, tree):
    for path in (tree / LISTS / "single").rglob("*.txt"):
        content = path.read_bytes()
        mark = "\ufeff".encode("gb18030" if "with_caption" in str(path) else "utf-8")
        path.write_bytes(mark + content)
    for listing in ("no_caption", "with_caption"):
        result, plain = read(tree, listing=listing), read(built, listing=listing)
        assert not failed(result)
        assert [(r.clip_id, r.label, r.caption) for r in result.rows] == [
            (r.clip_id, r.label, r.caption) for r in plain.rows
        ]


def test_captions_in_utf8_whose_chinese_is_gone_are_not_read_as_gb18030(built, tree):
    """`’` and `é` in UTF-8 are valid GB18030, for other characters."""
    for path in (tree / LISTS / "single").rglob("with_caption/*/*.txt"):
        lines = [line.split("\t") for line in path.read_bytes().decode("gb18030").split("\r\n") if line]
        text = "".join(f"{clip}\t{label}\t\tIt’s a café.\r\n" for clip, label, _, _ in lines)
        path.write_bytes(text.encode())
    result = read(tree)
    assert {row.caption for row in result.rows if row.label != "neutral"} == {"It’s a café."}
    assert "is in UTF-8 and was read as such" in failed(result)["caption_encoding"].found


@pytest.mark.parametrize(
    ("english", "encoding", "what"),
    [
        ("A cafÃ©.", "utf-8", "UTF-8 that was read as Latin-1"),
        ("Ò»¸öÈË smiles.", "utf-8", "Chinese that was read as Latin-1"),
        ("She鈥檚 sad.", "gb18030", "UTF-8 that was read as GB18030"),
        ("He is na飗e.", "gb18030", "Latin-1 that was read as GB18030"),
        ("He is \ufffd.", "utf-8", "characters that could not be decoded"),
    ],
)
def test_captions_in_the_wrong_encoding_are_counted_with_their_clips(tree, english, encoding, what):
    path = tree / LISTS / "single/with_caption/set_1/train.txt"
    first, *rest = path.read_bytes().decode("gb18030").split("\r\n")
    clip, label, chinese, _ = first.split("\t")
    path.write_bytes("\r\n".join(["\t".join([clip, label, chinese, english]), *rest]).encode(encoding))
    check = failed(read(tree))["text_encoding"]
    assert (check.severity, check.clips) == ("warning", (clip[:5],))
    assert f"1 captions are damaged: {clip[:5]} ({what}: " in check.found


def test_a_list_that_was_read_as_ascii_and_saved_again_is_not_read_as_gb18030(tree):
    """Lost characters in UTF-8 are valid GB18030, with Chinese in its columns."""
    path = tree / LISTS / "single/with_caption/set_1/train.txt"
    lines = path.read_bytes().decode("gb18030").split("\r\n")
    clip, label, chinese, _ = lines[0].split("\t")
    lines[0] = "\t".join([clip, label, chinese, "The eyes – wide."])
    path.write_bytes("\r\n".join(lines).encode("gb18030").decode("ascii", errors="replace").encode())
    result = read(tree)
    assert clip[:5] in failed(result)["text_encoding"].clips
    assert not any("锟" in (row.caption or "") for row in result.rows)


@pytest.mark.parametrize("listing", ["no_caption", "with_caption"])
def test_a_label_that_differs_between_the_two_kinds_of_list_is_refused(tree, listing):
    folder = tree / LISTS / "single/with_caption"
    clip = first_of(folder / "set_1/train.txt")
    for path in folder.rglob("*.txt"):  # the same in every fold: only the other kind of list disagrees
        text = path.read_bytes().decode("gb18030")
        text = re.sub(rf"{clip}\.mp4\t\w+", f"{clip}.mp4\tcontempt", text)
        path.write_bytes(text.encode("gb18030"))
    with pytest.raises(DataError, match=rf"{clip} \(\w+ in .*_caption/set_\d.*, \w+ in .*_caption/set_\d"):
        read(tree, listing=listing)


def first_of(path):
    """The first clip of a captioned list that is not labelled contempt."""
    lines = (line.split("\t") for line in path.read_bytes().decode("gb18030").splitlines())
    return next(line[0][:5] for line in lines if line[1] != "contempt")


def change_label(path, destination=None):
    """Changes the label of a sheet's first clip, in place or in a copy; returns the clip."""
    book = load_workbook(path)
    cell = book.active.cell(2, book.active.max_column)
    cell.value = cell.value % 11 + 1
    book.save(destination or path)
    return book.active.cell(2, 1).value[:5]


@pytest.mark.parametrize("name", ["single_set.xlsx", "Single-Set.XLSX"])
def test_two_sheets_that_contradict_each_other_are_refused(tree, name):
    clip = change_label(tree / "Labels/single-set.xlsx", tree / "copy.xlsx")
    (tree / "copy.xlsx").rename(tree / "Labels" / name)
    with pytest.raises(
        DataError, match=rf"{clip} \(.* in the lists, .* in the sheet: .*txt:\d+, Labels/{name}#row2\)"
    ):
        read(tree)


def test_two_worksheets_that_contradict_each_other_are_refused(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    second = book.copy_worksheet(book.active)
    second.title = "old"
    book.save(path)
    assert not failed(read(tree))
    second.cell(2, 13).value = second.cell(2, 13).value % 11 + 1
    book.save(path)
    with pytest.raises(DataError, match=r"single-set\.xlsx \(worksheet 'old'\)#row2\)"):
        read(tree)


def test_a_sheet_as_spreadsheets_save_it(tree):
    """Zeros dropped from clip ids, numbers as text, `.MP4`."""
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    for number, row in enumerate(book.active.iter_rows(min_row=2)):
        clip = row[0].value[:5]
        row[0].value = (int(clip), str(int(clip)), f"{clip}.MP4", f"{int(clip)}.0", f" {clip}.mp4 ")[
            number % 5
        ]
        row[12].value = (row[12].value, str(row[12].value), f"{row[12].value}.0")[number % 3]
    book.save(path)
    assert not failed(read(tree))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, "the clip", r"row 2: 'the clip' is not a clip like `00019\.mp4`"),
        (13, 12, r"row 2: label id 12 is not in mafw's range"),
        (13, 1.2, r"row 2: 1\.2 is not a label id"),
    ],
)
def test_a_cell_that_means_nothing_is_refused(tree, column, value, message):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    book.active.cell(2, column).value = value
    book.save(path)
    with pytest.raises(DataError, match=message):
        read(tree)


def test_a_column_that_appears_twice_is_refused(tree):
    path = tree / "Labels/single-set.xlsx"
    book = load_workbook(path)
    book.active.cell(1, 14).value = "Single_Label"
    book.save(path)
    with pytest.raises(DataError, match="column 'single_label' appears twice in its first row"):
        read(tree)


def test_a_comma_that_a_spreadsheet_dropped_makes_no_compound_label(tree):
    path = tree / "Labels/multi-set.xlsx"
    book = load_workbook(path)
    book.active.cell(2, 13).value = 12  # was "1,2", and 12 is our id of anger_disgust
    book.save(path)
    with pytest.raises(DataError, match="row 2: 12 is not an id of a single emotion"):
        read(tree, "mafw_compound")


def test_two_captions_of_one_clip_are_counted(tree):
    shutil.rmtree(tree / LISTS / "single/with_caption")
    path = tree / "Labels/descriptive_text.xlsx"
    book = load_workbook(path)
    clip, chinese, _ = (cell.value for cell in book.active[1])
    book.active.append([clip, chinese, "Another one."])
    book.save(path)
    result = read(tree)
    check = failed(result)["one_caption"]
    assert check.clips == (clip[:5],)
    assert "Another one." not in {row.caption for row in result.rows}

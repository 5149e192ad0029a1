"""Clips that a served model reads from an object store, by their URIs."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.answering.clips import ClipError, ClipInput, ServedClips, served_clips
from erv.environment import Environment
from erv.storage.store import open_store

pytestmark = pytest.mark.integration

ODD = "a%20b #1?+ü&=.mp4"
ABSENT = "no such object below the served prefix"


@pytest.fixture(scope="module")
def clips(stack: Environment) -> ServedClips:
    store = open_store(stack)
    bucket = stack.raw_bucket
    store.write(b"a clip", f"s3://{bucket}/served/monday/a b.mp4")
    store.write(b"odd", f"s3://{bucket}/served/{ODD}")
    store.write(b"another", f"s3://{bucket}/served-too/b.mp4")
    store.write(b"a secret", f"s3://{bucket}/secret.mp4")
    return ServedClips(None, f"s3://{bucket}/served", store)


def ask(clips: ServedClips, uri: str, folder: Path) -> bytes:
    return clips.file_of(ClipInput(uri), 0, folder).read_bytes()


def test_an_object_below_the_prefix_is_read(clips: ServedClips, stack: Environment, tmp_path: Path) -> None:
    assert ask(clips, f"s3://{stack.raw_bucket}/served/monday/a b.mp4", tmp_path) == b"a clip"
    # A key is taken as it is: nothing in it is decoded, or ends it.
    assert ask(clips, f"s3://{stack.raw_bucket}/served/{ODD}", tmp_path) == b"odd"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://{bucket}/secret.mp4",
        "s3://{bucket}/served-too/b.mp4",
        "s3://{bucket}/served/../secret.mp4",
        "s3://{bucket}/served/./monday/a b.mp4",
        "s3://{bucket}/served//monday/a b.mp4",
        "s3://{bucket}/served/",
        "s3://{bucket}/served",
        "s3:/{bucket}/served/monday/a b.mp4",
        "s3://elsewhere/served/monday/a b.mp4",
        "s3://{bucket}/served/gone.mp4",
    ],
)
def test_nothing_else_is_read(clips: ServedClips, stack: Environment, tmp_path: Path, uri: str) -> None:
    with pytest.raises(ClipError) as refused:
        ask(clips, uri.format(bucket=stack.raw_bucket), tmp_path)
    assert str(refused.value).startswith(("no such object", "no such file"))
    assert stack.s3_endpoint is not None
    assert stack.s3_endpoint not in str(refused.value)


def test_an_object_that_is_too_large_is_not_read(
    clips: ServedClips, stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erv.answering.clips.MAX_FETCHED_MB", 0)
    with pytest.raises(ClipError, match="larger than 0 MB"):
        ask(clips, f"s3://{stack.raw_bucket}/served/monday/a b.mp4", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_operator_names_folder_and_prefix(
    stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.variables().items():
        monkeypatch.setenv(name, value)
    prefix = f"s3://{stack.raw_bucket}/served"
    found = served_clips({"ERV_SERVE_ROOT": f"{tmp_path}, {prefix}/"})
    assert (found.folder, found.prefix) == (tmp_path.resolve(), prefix)
    assert found.store is not None

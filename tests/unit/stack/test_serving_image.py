"""The image that serves a version, as it is written; tests/container builds and runs it."""

from __future__ import annotations

import re

from erv.answering.clips import ROOT_VARIABLE
from tests.support.paths import ROOT
from tests.support.serving_image import instructions


def texts(instruction: str) -> list[str]:
    return [text for name, text in instructions() if name == instruction]


def test_it_serves_as_a_user_without_rights() -> None:
    order = [name for name, _ in instructions()]
    assert texts("USER") == ["erv"]
    assert order.index("USER") < order.index("CMD")
    assert order[-1] == "CMD"


def test_it_copies_nothing_but_the_version() -> None:
    """The context is the folder that MLflow stores: requirements.txt stands at its top."""
    copied = [[word for word in text.split() if not word.startswith("--")] for text in texts("COPY")]
    assert [words[0] for words in copied] == ["requirements.txt", "."]
    assert not texts("ADD")


def test_it_is_built_from_the_python_of_the_other_images() -> None:
    other = (ROOT / "infra/compose/Dockerfile").read_text()
    assert re.findall(r"^ARG PYTHON_IMAGE=(.+)$", other, re.M) == [
        text.partition("=")[2] for text in texts("ARG") if text.startswith("PYTHON_IMAGE=")
    ]


def test_it_reads_clips_below_one_folder_alone() -> None:
    (variables,) = texts("ENV")
    assert f"{ROOT_VARIABLE}=/clips" in variables.split()


def test_command_and_health_check_use_the_open_port() -> None:
    (port,) = texts("EXPOSE")
    assert f'"-p", "{port}"' in texts("CMD")[0]
    assert f"127.0.0.1:{port}/ping" in texts("HEALTHCHECK")[0]

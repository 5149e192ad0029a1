"""`erv serve` follows the champion of a real registry, and no request is lost while it changes."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from erv.environment import Environment
from tests.integration.scratch import Scratch, wait_until
from tests.integration.test_registry import CANDIDATE, PIPELINE
from tests.support.tiny_bundle import write_clip, write_models
from tests.support.websites import program

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAME = "served-policy"


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A workspace whose candidate is version 1, the champion."""
    scratch = Scratch(tmp_path_factory.mktemp("served"), stack)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "candidate.py").write_text(CANDIDATE)
    parameters = scratch.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("model_name: emotion-policy", f"model_name: {NAME}"))
    write_models(scratch.folder / "inputs")
    champion(scratch, "50 50", "1")
    return scratch


def champion(scratch: Scratch, quality: str, number: str) -> None:
    scratch.control("quality", quality)
    scratch.python("-m", "dvc", "repro", "-q")
    assert f"{NAME} version {number} registered" in scratch.erv("publish").stdout
    scratch.erv("promote", number, "--force", "--reason", "for this test")


def test_the_champion_is_followed(scratch: Scratch, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    arguments = ["serve", "--port", "0", "--device", "cpu", "--look-every", "0.5"]
    arguments += ["--per-minute", "1000000", "--burst", "1000"]  # two who ask without a pause
    with program(arguments, tmp_path / "log", folder=scratch.folder, more=scratch.variables()) as running:
        stop = threading.Event()
        answers: list[tuple[int, str]] = []

        def ask() -> None:
            with httpx.Client(base_url=running.address, trust_env=False, timeout=300) as client:
                while not stop.is_set():
                    answer = client.post("/explain", files={"content": clip})
                    answers.append((answer.status_code, answer.json().get("model", {}).get("id", "")))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: bool(answers), 240)
            champion(scratch, "49 50", "2")
            wait_until(lambda: answers[-1][1] == f"{NAME}/2", 300)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}
        assert {name for _, name in answers} == {f"{NAME}/1", f"{NAME}/2"}
        models = httpx.get(f"{running.address}/v1/models", trust_env=False).json()["data"]
        assert [model["id"] for model in models] == [NAME, f"{NAME}/2"]
        assert all(model["created"] > 1_700_000_000 for model in models)
        assert running.end() == 0
    log = (tmp_path / "log").read_text()
    assert log.startswith(f"loading {NAME}/1 ...\n{NAME}/1 answers at {running.address}\n")
    assert f"{NAME}/2 answers now" in log

"""The pretrained encoder, unpacked and loaded once."""

from pathlib import Path

import pytest

from erv.evaluate.judges.encoder import SentenceEncoder
from tests.support.judging import encoder_folder


@pytest.fixture(scope="session")
def encoder_at(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return encoder_folder(tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def encoder(encoder_at: Path) -> SentenceEncoder:
    return SentenceEncoder(encoder_at)

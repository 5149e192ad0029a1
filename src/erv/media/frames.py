"""Frame folders: a clip as images, e.g. `00001/00001_00012.jpg` of DFEW. Such a clip has no sound.

Images are sorted by the last number in their names. They may differ in size: each is made square separately,
as the released code does with a list of images.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from erv.media.limits import MAX_FRAMES, MediaError, check_size, short_reason

if TYPE_CHECKING:
    from PIL.Image import Image

_NUMBER = re.compile(r"\d+")
_FORMATS = ("JPEG", "PNG", "BMP")
# Modes that are plainly 8-bit pictures. Scaling 16-bit images would need a rule that nobody has stated.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def list_frames(folder: Path) -> list[Path]:
    """The images directly inside a folder, in order of number.

    Raises:
        MediaError: there is none, there are too many, a name has no number, or two have the same.
    """
    from erv.sources.frame_folders import is_frame

    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_frame(path.name) or not path.is_file():
            continue
        numbers = _NUMBER.findall(path.stem)
        if not numbers:
            raise MediaError(f"frame without a number: {path.name!r}")
        number = int(numbers[-1])
        if number in numbered:
            raise MediaError(f"two frames with one number: {numbered[number].name!r} and {path.name!r}")
        numbered[number] = path
    if not numbered:
        raise MediaError("frame folder has no images")
    if len(numbered) > MAX_FRAMES:
        raise MediaError(f"too long: {len(numbered)} frames, at most {MAX_FRAMES} are taken")
    return [numbered[number] for number in sorted(numbered)]


def read_frame(path: Path, name: str) -> Image:
    """Decodes an image to RGB, checking its size before its pixels.

    Args:
        path: of the image.
        name: of the image, for messages.

    Raises:
        MediaError: it can't be decoded, is too large, or doesn't have 8 bits per channel.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                check_size(*image.size, what="an image")
                if image.mode not in _MODES:
                    raise MediaError(f"image of mode {image.mode}, expected 8 bits a channel: {name!r}")
                return image.convert("RGB")
    except (MediaError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"too large: {short_reason(error, path)}") from error
    except Exception as error:  # PIL's plugins can raise anything for malformed bytes
        raise MediaError(f"image can't be decoded: {name!r}: {short_reason(error, path)}") from error

"""Frame choice and geometry against vectors of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from erv.media.decode import DecodeRule, decode, frame_indices, to_square

DATA = Path(__file__).parent / "data" / "preprocess"
CASES = json.loads((DATA / "preprocess_golden.json").read_text())


def test_frame_indices():
    cases = CASES["frame_indices"]
    assert len(cases) > 10
    for case in cases:
        found = frame_indices(case["n_frames"], case["num_frames"])
        assert found.tolist() == case["indices"], case


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
@pytest.mark.parametrize("name", ["landscape", "portrait", "square", "odd"])
def test_geometry(name, geometry):
    vectors = load_file(DATA / "preprocess.safetensors")
    squares = to_square(vectors[f"{name}.frames_uint8"], 48, geometry)
    pixels = squares.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    expected = vectors[f"{name}.pixel_values_{'pad' if geometry == 'pad' else 'nopad'}"]
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
def test_a_short_folder_completed_with_black_frames(geometry, tmp_path):
    """Five images for eight frames; each black one swaps width and height, which shows when padded."""
    vectors = load_file(DATA / "preprocess.safetensors")
    for number, pixels in enumerate(vectors["short5.frames_uint8"]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    squares = decode(tmp_path, DecodeRule(8, 48, geometry, 16000, short_folders="black")).frames
    pixels = squares.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    expected = vectors[f"short5.pixel_values_{'pad' if geometry == 'pad' else 'nopad'}"]
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    repeated = decode(tmp_path, DecodeRule(8, 48, geometry, 16000)).frames
    np.testing.assert_array_equal(repeated, squares[frame_indices(5, 8)])

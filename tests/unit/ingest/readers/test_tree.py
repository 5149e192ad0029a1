"""The trees that other tests stand on."""

import numpy as np
from decord import AudioReader, VideoReader

from tests.support import trees


def test_signed_copies_differ_in_bytes_and_decode_alike(corpus, tmp_path):
    mp4 = sorted((corpus / "mafw/data/clips").iterdir())[0].read_bytes()
    copies = [trees.sign(mp4, index) for index in (0, 1)]
    assert len({mp4, *copies}) == 3
    decoded = []
    for index, content in enumerate((mp4, *copies)):
        path = tmp_path / f"{index}.mp4"
        path.write_bytes(content)
        decoded.append(
            (VideoReader(str(path)).get_batch([0, 5]).asnumpy(), AudioReader(str(path))[:].asnumpy())
        )
    for frames, sound in decoded[1:]:
        np.testing.assert_array_equal(frames, decoded[0][0])
        np.testing.assert_array_equal(sound, decoded[0][1])


def test_a_small_tree_has_every_class_and_fold(tmp_path):
    trees.write_dfew(tmp_path, 0.001)
    lines = (tmp_path / "EmoLabel_DataSplit/train(single-labeled)/set_3.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in lines[1:]} == {"1", "2", "3", "4", "5", "6", "7"}
    sizes = [
        len((tmp_path / f"EmoLabel_DataSplit/test(single-labeled)/set_{fold}.csv").read_text().splitlines())
        for fold in range(1, 6)
    ]
    assert min(sizes) > 1

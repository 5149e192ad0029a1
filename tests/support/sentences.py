"""A small labelled corpus: four emotions, three sentences per clip, many sentences repeated."""

import csv
import io

from erv.distill.corpus import explanation_sentences
from erv.distill.distill import distill
from erv.manifest import ClipRow
from erv.prompts import format_completion
from erv.sentences import split_sentences
from erv.settings import DistillSettings

DISTILL = DistillSettings(
    teachers=({"kind": "reference"},),
    max_quarantine_share=0.1,
    validation_share=0.2,
    test_share=0.2,
)
WORDS = {"anger": "rage", "sadness": "tears", "happiness": "joy", "fear": "danger"}
ROOMS = [
    f"{where} {what}" for where in ("small", "long", "old") for what in ("room", "hall", "house", "yard")
]
FACES = [f"{where} {what}" for where in ("young", "pale", "tired") for what in ("face", "mouth", "brow")]
VOICES = [f"{where} {what}" for where in ("low", "thin", "dry") for what in ("voice", "tone", "speech")]


def clip(number, text, label="anger"):
    name = f"sample_{number:08d}"
    completion = format_completion(text, label)
    return ClipRow(
        name,
        "reasoning",
        0,
        "train",
        label,
        label,
        None,
        completion,
        "video",
        "s3://x",
        1,
        "0" * 64,
        "",
        "",
        None,
    )


def rows_and_sheet(count=120):
    """A reasoning manifest, and the text of its `sentence_labels.csv`."""
    rows, sheet = [], io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["name", "index", "sentence", "labels"])
    for number in range(count):
        label = list(WORDS)[number % len(WORDS)]
        face, voice = FACES[number % len(FACES)], VOICES[number % len(VOICES)]
        text = f"The {ROOMS[number % len(ROOMS)]} is plain. The {face} shows {WORDS[label]} now."
        text += f" The {voice} tells of {WORDS[label]}."
        rows.append(clip(number, text, label))
        labels = ["neutral", label, label]
        for index, sentence in enumerate(split_sentences(text)):
            writer.writerow([rows[-1].clip_id, index, sentence, labels[index]])
    return rows, sheet.getvalue()


def labelled(count=120, seed=0):
    """The corpus as the teacher `reference` labels it."""
    rows, sheet = rows_and_sheet(count)
    return distill(explanation_sentences(rows, sheet), {"reference": None}, DISTILL, seed)

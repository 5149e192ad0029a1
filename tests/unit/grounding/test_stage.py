"""The stage: from the evaluations and the pinned sources to the two files."""

import json
from argparse import Namespace
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq

import stages.grounding
from erv.claims import CUE_WORDINGS
from erv.evaluate.evaluate import write_predictions
from erv.labels import LabelSpace
from erv.manifest import write_manifest, write_table
from erv.pinning import pin
from erv.prompts import format_completion
from erv.sample.emotions import EXPRESSIONS
from erv.settings import load_settings
from tests.support.paths import ROOT
from tests.support.verdicts import rows_of


def test_it_measures_all_policies_against_the_cues_of_the_source(tmp_path):
    settings = load_settings(ROOT / "params.yaml")
    rows = rows_of("mafw", 33, splits=("test",))
    cues = [
        {
            "clip_id": row.clip_id,
            "face_cues": list(EXPRESSIONS[row.label].face),
            "voice_cues": list(EXPRESSIONS[row.label].voice),
            "channel": "both",
        }
        for row in rows
    ]
    write_table(pa.Table.from_pylist(cues), tmp_path / "mafw" / "cues.parquet")
    sources = tmp_path / "sources"
    sources.mkdir()
    pin("mafw", str(tmp_path / "mafw"), None).save(sources / "mafw.lock.json")
    write_manifest(rows, tmp_path / "manifest" / "mafw.parquet")
    for number, policy in enumerate(settings.compare.policies):
        names = LabelSpace.load("mafw").names
        said = {
            row.label: EXPRESSIONS[names[(names.index(row.label) + number) % 11]].voice[0] for row in rows
        }
        predictions = [
            {
                "dataset": "mafw",
                "clip_id": row.clip_id,
                "split": "test",
                "label": row.label,
                "completion": format_completion(CUE_WORDINGS[said[row.label]][0][0] + ".", row.label),
                "predicted": row.label,
                "judged": None,
                "sentences": 1,
            }
            for row in rows
        ]
        write_predictions(predictions, tmp_path / "eval" / policy / "predictions.parquet")
    arguments = Namespace(
        evaluations=tmp_path / "eval",
        manifests=tmp_path / "manifest",
        sources=sources,
        claims=tmp_path / "report" / "grounding.parquet",
        metrics=tmp_path / "report" / "grounding.json",
    )
    run = MagicMock()
    stages.grounding.main(arguments, settings, run)
    found = json.loads(arguments.metrics.read_text())
    shares = {name: found["cues"]["policies"][name]["mafw"]["voice"] for name in settings.compare.policies}
    assert shares["sft"]["precision"]["value"] == 1.0
    assert shares["erv"]["precision"]["value"] < shares["sft"]["precision"]["value"]
    assert found["cues"]["differences"]["erv-sft"]["mafw"]["voice"]["precision"]["high"] < 0
    assert found["channels"]["erv"]["both"]["clips"] == 33
    assert pq.read_table(arguments.claims).num_rows == 33 * 3
    logged = run.log_metrics.call_args.args[0]
    assert logged["cues/sft/mafw/voice/precision"] == 1.0

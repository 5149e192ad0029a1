"""The stage: from the evaluations and the pinned sources to the two files."""

import json
from argparse import Namespace
from unittest.mock import MagicMock

import pyarrow.parquet as pq

import stages.grounding
from erv.claims import CUE_WORDINGS
from erv.cues import ClipCues, write_cues
from erv.evaluate.evaluate import write_json, write_predictions
from erv.labels import LabelSpace
from erv.manifest import write_manifest
from erv.prompts import format_completion
from erv.sample.emotions import EXPRESSIONS
from erv.settings import load_settings
from tests.support.paths import ROOT
from tests.support.verdicts import rows_of


def test_it_measures_all_policies_against_the_cues_of_the_source(tmp_path):
    settings = load_settings(ROOT / "params.yaml")
    rows = rows_of("mafw", 33, splits=("test",))
    shown = {
        name: {"face": frozenset(item.face), "voice": frozenset(item.voice)}
        for name, item in EXPRESSIONS.items()
    }
    write_cues(
        [ClipCues(row.clip_id, shown[row.label], "both") for row in rows], tmp_path / "cues/mafw.parquet"
    )
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
        direct = {"explains": False} if policy == "r1_omni" else {}
        write_json({"overall": {}, **direct}, tmp_path / "eval" / policy / "metrics.json")
    arguments = Namespace(
        evaluations=tmp_path / "eval",
        manifests=tmp_path / "manifest",
        cues=tmp_path / "cues",
        shards=tmp_path / "shards",  # not there: only a judge that is shown clips reads them
        claims=tmp_path / "report" / "grounding.parquet",
        metrics=tmp_path / "report" / "grounding.json",
    )
    run = MagicMock()
    stages.grounding.main(arguments, settings, run)
    found = json.loads(arguments.metrics.read_text())
    assert set(found["cues"]["policies"]) == {"sft", "erv"}, "a policy that doesn't explain claims nothing"
    shares = {name: item["mafw"]["voice"] for name, item in found["cues"]["policies"].items()}
    assert shares["sft"]["precision"]["value"] == 1.0
    assert shares["erv"]["precision"]["value"] < shares["sft"]["precision"]["value"]
    assert found["cues"]["differences"]["erv-sft"]["mafw"]["voice"]["precision"]["high"] < 0
    assert found["channels"]["erv"]["both"]["clips"] == 33
    assert found["channels"]["r1_omni"]["both"]["clips"] == 33
    assert pq.read_table(arguments.claims).num_rows == 33 * 2
    logged = run.log_metrics.call_args.args[0]
    assert logged["cues/sft/mafw/voice/precision"] == 1.0

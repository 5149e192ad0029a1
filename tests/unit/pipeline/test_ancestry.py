"""What the entries of a `dvc.lock` say that something came from, whatever the parameters are by now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from erv.files import content_digest
from erv.pipeline import Input, ancestors, digest_of_files, in_use, inputs_of, of_bundle

NOTHING = "d751713988987e9331980363e24189ce.dir"  # DVC's hash of an empty folder


def entry(deps: Mapping[str, str], outs: Mapping[str, str], **params: Any) -> dict[str, Any]:
    def items(found: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"path": path, "md5": md5} for path, md5 in found.items()]

    return {"cmd": "x", "deps": items(deps), "outs": items(outs), "params": {"params.yaml": params}}


def folder(path: str, *names: str) -> str:
    """The hash of a folder with these files, whose hashes are their names."""
    return digest_of_files(path, {f"{path}/{name}": name for name in names})


def data_set(name: str) -> dict[str, dict[str, Any]]:
    manifest = {f"data/manifest/{name}.parquet": f"{name}.parquet"}
    return {
        f"ingest@{name}": entry({}, manifest),
        f"extract@{name}": entry(
            manifest,
            {f"data/shards/{name}": f"{name}.dir", f"data/quarantine/{name}.parquet": f"q-{name}"},
        ),
    }


def lock(*names: str, left_over: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """The entries of a run over these data sets, and those of a run before it."""
    entries: dict[str, dict[str, Any]] = {}
    for name in (*left_over, *names):
        entries |= data_set(name)
    read = {"data/manifest": folder("data/manifest", *(f"{name}.parquet" for name in names))}
    return {
        **entries,
        "leakage": entry({**read, "data/shards": "s.dir"}, {"data/training_sets.json": "t"}),
        "grpo@erv": entry(
            {"data/training_sets.json": "t"}, {"models/policy/erv": "p.dir"}, **{"roles.train": list(names)}
        ),
        "register": entry({"models/policy/erv": "p.dir"}, {"models/candidate": "c.dir"}),
    }


def test_a_folder_has_the_hash_of_its_files(tmp_path: Path) -> None:
    files = {"a.parquet": "1", "b/c": "2", "b.csv": "3"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    hashes = {f"data/{name}": content_digest(tmp_path / name) for name in files}
    assert digest_of_files("data", hashes) == content_digest(tmp_path)
    assert digest_of_files("data/b.csv", hashes) == content_digest(tmp_path / "b.csv")


def test_what_was_left_over_from_an_earlier_run_does_not_count() -> None:
    """Its shards can't be listed here, but they are of a data set that the manifests lack."""
    found = lock("mafw", "dfew", left_over=("old",))
    assert found.keys() - of_bundle(found).keys() == {"ingest@old", "extract@old"}
    assert list(of_bundle(found)) == [name for name in found if not name.endswith("@old")]


def test_what_the_candidate_came_from_counts_though_no_parameter_names_it_now(tmp_path: Path) -> None:
    found = lock("mafw", "dfew")
    one = {"matrix": {"dataset": "${datasets}"}, "cmd": "x"}
    stages = {"ingest": one, "extract": one, "leakage": {"cmd": "x"}, "register": {"cmd": "x"}}
    stages["grpo"] = {"matrix": {"variant": ["erv"]}, "cmd": "x"}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "params.yaml").write_text("datasets: [mafw]\n")
    assert in_use(found, tmp_path).keys() == found.keys()
    left = lock("mafw", left_over=("dfew",))
    assert left.keys() - in_use(left, tmp_path).keys() == {"ingest@dfew", "extract@dfew"}


def test_recorded_roles_name_what_no_dependency_does() -> None:
    found = {name: value for name, value in lock("mafw", "dfew").items() if name != "leakage"}
    assert of_bundle(found).keys() == found.keys()


def test_an_evaluation_after_the_candidate_was_made_is_none_of_its_origins() -> None:
    answers = {"eval/erv/predictions.parquet": "erv", "eval/new/predictions.parquet": "new"}
    found = {
        "evaluate@erv": entry({}, dict([*answers.items()][:1])),
        "evaluate@new": entry({}, dict([*answers.items()][1:])),
        "register": entry(
            {"eval": digest_of_files("eval", {"eval/erv/predictions.parquet": "erv"})},
            {"models/candidate": "c"},
        ),
    }
    assert of_bundle(found).keys() == {"evaluate@erv", "register"}


def test_of_two_writers_of_a_path_the_one_with_its_hash_counts() -> None:
    found = {
        "arms@erv": entry({}, {"models/policy/erv": "other.dir"}),
        "grpo@erv": entry({}, {"models/policy/erv": "p.dir"}),
        "register": entry({"models/policy/erv": "p.dir"}, {"models/candidate": "c.dir"}),
    }
    assert of_bundle(found).keys() == {"grpo@erv", "register"}


def test_what_was_written_again_since_is_not_what_was_read() -> None:
    found = lock("mafw", "dfew")
    found["grpo@erv"]["outs"][0]["md5"] = "again.dir"
    found["ingest@dfew"]["outs"][0]["md5"] = "again"
    assert inputs_of(found, "register") == (Input("models/policy/erv", "p.dir", ("grpo@erv",), False),)
    manifests, _ = inputs_of(found, "leakage")
    assert manifests.as_written is False
    assert manifests.makers == ("ingest@dfew", "ingest@mafw")
    assert of_bundle(found).keys() == found.keys()  # nobody knows which of them


def test_folders_of_folders_are_compared_where_they_can_be_listed() -> None:
    found = lock("mafw", "dfew", left_over=("old",))
    files = {f"data/shards/{name}/0.tar": f"tar-{name}" for name in ("mafw", "dfew")}
    found["leakage"]["deps"][1]["md5"] = digest_of_files("data/shards", files)

    def listing(md5: str) -> dict[str, str]:
        return {"0.tar": f"tar-{md5.removesuffix('.dir')}"}

    assert inputs_of(found, "leakage")[1].as_written is None
    expected = Input(
        "data/shards", digest_of_files("data/shards", files), ("extract@dfew", "extract@mafw"), True
    )
    assert inputs_of(found, "leakage", listing)[1] == expected


def test_an_empty_folder_came_from_no_stage() -> None:
    """No policy samples explanations any more; the table of an earlier run was set aside."""
    left = entry({}, {"data/rollouts/sft.parquet": "r"})
    found = {
        "rollouts@sft": left,
        "distill": entry({"data/rollouts": NOTHING}, {"data/sentences.parquet": "s"}),
    }
    assert inputs_of(found, "distill") == (Input("data/rollouts", NOTHING, (), True),)
    assert ancestors(found, ["distill"]).keys() == {"distill"}

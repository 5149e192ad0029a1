"""Imported folders: which are refused, and that an imported version can be exported again."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors import safe_open

from erv.commands.import_ import command
from erv.errors import ErvError, RegistryError
from erv.export.export import export
from erv.files import sha256_of, temporary_name
from erv.policies import load_policy
from erv.policies.common.arm import Arm, read_arm, write_arm
from erv.prompts import DIRECT_BEGINNING
from erv.register.external import hidden, write_external
from erv.register.fetched import FetchedVersion
from erv.register.record import version_record
from erv.register.register import Bundle
from erv.register.verdict import Verdict
from tests.support.tiny_bundle import SERVING, write_models

LIMITS: dict[str, Any] = SERVING["limits"]  # type: ignore[assignment]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def theirs(models: Path, tmp_path: Path) -> Path:
    """A folder as an export has it."""
    folder = tmp_path / "theirs"
    shutil.copytree(models / "policy", folder)
    shutil.copytree(models / "verifier", folder / "verifier")
    return folder


def imported(folder: Path, bundle: Path) -> Bundle:
    return write_external(folder, bundle, verifier=None, serving=SERVING)


@pytest.fixture
def version(theirs: Path, tmp_path: Path) -> FetchedVersion:
    """A version, as it is on this machine once it is fetched."""
    bundle = imported(theirs, tmp_path / "bundle")
    record = {"model": "theirs", "bundle": bundle.hash, "stages": {}, "files": {}}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/lineage.json").write_text(json.dumps(record))
    return FetchedVersion("theirs", "1", "a" * 64, bundle.hash, tmp_path / "model", bundle.folder, record)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limits": {}}, "limits.min_seconds: missing; add it"),
        ({"limits": {**LIMITS, "min_hertz": 1.0}}, "limits.min_hertz: unknown parameter"),
        ({"limits": {**LIMITS, "min_fps": "5"}}, "limits.min_fps: Input should be a valid number, found '5'"),
        ({"limits": {**LIMITS, "min_fps": math.nan}}, "limits.min_fps: Input should be a finite number"),
        ({"limits": {**LIMITS, "min_side": True}}, "limits.min_side: Input should be a valid integer"),
        ({"limits": {**LIMITS, "min_loudness_db": 3.0}}, "limits.min_loudness_db: Input should be less than"),
        (
            {"limits": {**LIMITS, "max_seconds": 0.1}},
            "limits: min_seconds (0.5) must be smaller than max_sec",
        ),
        ({"limits": [1.0]}, "limits: expected a mapping, found [1.0]"),
        ({"frames": 2.5}, "frames: Input should be a valid integer"),
        ({"frames": 0}, "frames: Input should be greater than 0, found 0"),
        ({"size": -1}, "size: Input should be greater than 0, found -1"),
        ({"sample_rate": 0}, "sample_rate: Input should be greater than 0, found 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: Input should be greater than 0, found 0"),
        ({"geometry": None}, "geometry: Input should be 'stretch' or 'pad', found None"),
        ({"geometry": "nonsense"}, "geometry: Input should be 'stretch' or 'pad', found 'nonsense'"),
        ({"resize": "nearest"}, "resize: Input should be 'pillow' or 'uint8', found 'nearest'"),
    ],
)
def test_settings_that_every_batch_would_fail_on_are_refused(
    theirs: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    (theirs / "serving.json").write_text(json.dumps({**SERVING, **changed}))
    with pytest.raises(RegistryError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert str(refused.value).startswith(f"{theirs / 'serving.json'}: {said}")
    assert str(refused.value).endswith(", so this erv did not export it; export the version again")
    assert not (tmp_path / "bundle").exists()


def test_whole_numbers_and_what_older_exports_lack_are_taken(theirs: Path, tmp_path: Path) -> None:
    serving = {**SERVING, "limits": {**LIMITS, "max_seconds": 60}}
    (theirs / "serving.json").write_text(json.dumps(serving))
    usual = {**SERVING, "resize": "area"}
    found = write_external(theirs, tmp_path / "bundle", verifier=None, serving=usual)
    assert found.json("serving.json") == serving


def test_an_imported_version_can_be_exported_and_imported_again(
    version: FetchedVersion, tmp_path: Path
) -> None:
    export(version, tmp_path / "exported")
    card = (tmp_path / "exported/README.md").read_text()
    assert "External: a policy of the family humanomni" in card
    assert "No gate of it was decided here" in card
    assert "judges" not in card
    assert "what made it is not recorded" in card
    again = imported(tmp_path / "exported", tmp_path / "again")
    assert again.json("external.json")["says"]["bundle"] == version.bundle_hash
    for part in ("policy", "verifier", "serving.json"):
        assert sha256_of(again.folder / part) == sha256_of(version.bundle / part)


OWN = "name: team\nlabels:\n  - {id: 0, name: delight}\nmaps: {mafw: {delight: happiness}}\n"


def lists_emotions(folder: Path) -> None:
    """Changes the question of a policy to one that lists the emotions of a data set."""
    path = folder / "processor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "instruction": "One of {labels}?"}))


def test_label_spaces_go_out_and_come_back(theirs: Path, tmp_path: Path) -> None:
    lists_emotions(theirs)
    serving = {
        **SERVING,
        "missing_audio": "mark",
        "datasets": {"mafw": None, "team": "label_spaces/team.yaml"},
    }
    (theirs / "serving.json").write_text(json.dumps(serving))
    (theirs / "label_spaces").mkdir()
    (theirs / "label_spaces/team.yaml").write_text(OWN)
    bundle = imported(theirs, tmp_path / "bundle")
    assert bundle.json("serving.json") == serving
    assert (bundle.folder / "label_spaces/team.yaml").read_text() == OWN
    assert not (bundle.folder / "policy/label_spaces").exists()
    (tmp_path / "lineage.json").write_text(json.dumps({"model": "theirs", "stages": {}, "files": {}}))
    version = FetchedVersion("theirs", "1", "a" * 64, bundle.hash, tmp_path, bundle.folder, {})
    export(version, tmp_path / "exported")
    assert (tmp_path / "exported/label_spaces/team.yaml").read_text() == OWN


@pytest.mark.parametrize(
    ("datasets", "space", "said"),
    [
        ({}, OWN, "datasets: expected at least 1, found a mapping"),
        ({"../team": "label_spaces/../team.yaml"}, OWN, "datasets.../team"),
        ({"team": None}, OWN, "datasets.team is None, expected 'label_spaces/team.yaml', the file in the"),
        (
            {"team": "/etc/hostname"},
            OWN,
            "datasets.team is '/etc/hostname', expected 'label_spaces/team.yaml'",
        ),
        ({"team": "label_spaces/team.yaml"}, None, "label space 'team' not found"),
        ({"team": "label_spaces/team.yaml"}, "name: team\n", "label_spaces/team.yaml: lacks 'labels'"),
        (
            {"team": "label_spaces/team.yaml"},
            "name: team\nlabels: [{id: 0, name: delight}]\n",
            "label spaces 'team' and 'mafw' have no map to each other",
        ),
        (
            None,
            OWN,
            "does not say with which data sets the policy was tested (datasets), and its question lists",
        ),
    ],
)
def test_label_spaces_that_can_not_be_asked_are_refused(
    theirs: Path, tmp_path: Path, datasets: dict[str, Any] | None, space: str | None, said: str
) -> None:
    lists_emotions(theirs)
    serving = {**SERVING, **({} if datasets is None else {"datasets": datasets})}
    (theirs / "serving.json").write_text(json.dumps(serving))
    if space is not None:
        (theirs / "label_spaces").mkdir()
        (theirs / "label_spaces/team.yaml").write_text(space)
    with pytest.raises(ErvError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert said in str(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_says_nothing_gets_the_test_sets_of_the_workspace(theirs: Path, tmp_path: Path) -> None:
    lists_emotions(theirs)
    bundle = write_external(
        theirs, tmp_path / "bundle", verifier=None, serving=SERVING, datasets=("mafw", "dfew")
    )
    assert bundle.json("serving.json") == {**SERVING, "datasets": {"dfew": None, "mafw": None}}


def test_a_policy_that_does_not_think_goes_out_and_comes_back(theirs: Path, tmp_path: Path) -> None:
    """Its `arm.json` leads nowhere else, but both said that its weights were elsewhere."""
    write_arm(Arm(thinks=False), theirs)
    bundle = imported(theirs, tmp_path / "bundle")
    (tmp_path / "lineage.json").write_text(json.dumps({"model": "theirs", "stages": {}, "files": {}}))
    version = FetchedVersion("theirs", "1", "a" * 64, bundle.hash, tmp_path, bundle.folder, {})
    export(version, tmp_path / "exported")
    assert load_policy(tmp_path / "exported").begins == DIRECT_BEGINNING
    (tmp_path / "exported/lineage.json").unlink()
    again = imported(tmp_path / "exported", tmp_path / "again")
    assert sha256_of(again.folder / "policy") == sha256_of(theirs_without_verifier(theirs))
    assert read_arm(again.folder / "policy") == Arm(thinks=False)


def theirs_without_verifier(folder: Path) -> Path:
    shutil.rmtree(folder / "verifier")
    return folder


@pytest.mark.parametrize(
    "arm", [{"thinks": "no"}, {"thinks": False, "sizes": "all"}, {"thinks": False, "digest": "a" * 64}]
)
def test_an_arm_that_would_fail_on_every_clip_is_refused(
    theirs: Path, tmp_path: Path, arm: dict[str, Any]
) -> None:
    (theirs / "arm.json").write_text(json.dumps(arm))
    with pytest.raises(
        RegistryError, match=r"arm\.json: expected whether the policy thinks and nothing else"
    ):
        imported(theirs, tmp_path / "bundle")


def test_a_version_whose_weights_are_elsewhere_is_not_exported(
    version: FetchedVersion, tmp_path: Path
) -> None:
    write_arm(Arm(folder="/gone", digest="a" * 64, sizes={"model.safetensors": 1}), version.bundle / "policy")
    with pytest.raises(RegistryError, match=r"its policy is an arm, whose weights are elsewhere"):
        export(version, tmp_path / "exported")


def test_nothing_is_exported_over_what_others_wrote(
    version: FetchedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came into the folder after the first look was removed."""
    mine = tmp_path / "exports/mine"

    def slow(*arguments: Any) -> str:
        mine.mkdir(parents=True)
        (mine / "notes.txt").write_text("mine")
        return "card"

    monkeypatch.setattr("erv.export.export.model_card", slow)
    for _ in range(2):
        with pytest.raises(RegistryError, match="mine: has something in it already; name a new folder"):
            export(version, mine)
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]
    assert (mine / "notes.txt").read_text() == "mine"
    with pytest.raises(RegistryError, match="has something in it already"):
        export(version, mine / "notes.txt")


def test_an_empty_folder_is_exported_to_by_any_of_its_names(
    version: FetchedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`erv export .` ended in a stack trace."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    monkeypatch.chdir(tmp_path / "empty")
    dead = temporary_name(tmp_path / "empty").name.replace(f"-{os.getpid()}-", "-4194305-")
    (tmp_path / dead).mkdir()
    export(version, Path())
    export(version, tmp_path / "link")
    assert sha256_of(tmp_path / "empty") == sha256_of(tmp_path / "target")
    assert not (tmp_path / dead).exists()
    assert (tmp_path / "link").is_symlink()


STAGES = {"sft": {"entry": "e", "cmd": "c", "deps": {"a.lock.json": "1"}, "outs": {}, "params": {}}}


def test_what_a_folder_claims_of_its_origin_is_kept_and_goes_on(theirs: Path, tmp_path: Path) -> None:
    """Only model, bundle and commit were kept; what made the version was lost on the way."""
    record = {"model": "theirs", "bundle": "b", "commit": "c", "dirty": False, "stages": STAGES, "files": {}}
    (theirs / "lineage.json").write_text(json.dumps(record))
    bundle = imported(theirs, tmp_path / "bundle")
    says = bundle.json("external.json")["says"]
    assert says == {key: value for key, value in record.items() if key != "files"}
    text = version_record(bundle, "ours", code="c" * 64, files={}, run_id="r", parent_run_id=None, origin={})
    mine = json.loads(text)
    assert (mine["stages"], mine["claims"]) == ({}, says)
    (theirs / "lineage.json").write_text(text)
    assert imported(theirs, tmp_path / "again").json("external.json")["says"]["claims"] == says


def nested(depth: int) -> dict[str, Any]:
    return {"claims": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"model": 1}, "model is not a text"),
        ({"dirty": "no"}, "dirty is not true or false"),
        ({"stages": ["sft"]}, "stages is not an object"),
        ({"stages": {"sft": {"outs": {}}}}, "deps of stage sft is not an object"),
        ({"claims": {"commit": []}}, "in claims, commit is not a text"),
        ({"claims": "all"}, "in claims, it is not an object"),
        (nested(30), "it is nested more than 20 deep"),
    ],
)
def test_a_record_that_erv_did_not_write_is_refused(
    theirs: Path, tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    (theirs / "lineage.json").write_text(json.dumps(record))
    with pytest.raises(RegistryError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert str(refused.value).startswith(f"{theirs / 'lineage.json'}: ")
    assert f"{said}, so erv did not write it; export the version again, or take" in str(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_the_card_of_an_older_export_has_no_open_gates(theirs: Path, tmp_path: Path) -> None:
    """They looked as if this registry were still to decide them."""
    gate = Verdict("WAR", against="champion", minimum=-0.05).text()
    (theirs / "README.md").write_text(f"---\ntags: []\n---\n\n# theirs\n\n## Gates\n\n- {gate}\n")
    card = (imported(theirs, tmp_path / "bundle").folder / "card.md").read_text()
    assert card.startswith(
        "External: a policy of the family humanomni that this pipeline did not make. No gate"
    )
    assert "- not decided: WAR minus champion, needs more than -0.0500" in card
    assert "open" not in card


@pytest.mark.parametrize(
    ("readme", "kept"),
    [
        ("---\ntags: []\n---\nText.\n", "Text."),
        ("---\r\ntags: []\r\n---\r\nText.\r\n", "Text."),
        ("\ufeff---\ntags: []\n---\nText.\n", "Text."),
        ("---\n---\nText.\n", "Text."),
        ("---\ntags: [a]\nText that no line ends.\n", "---\ntags: [a]\nText that no line ends."),
        ("---\nA rule above.\n\n---\nAnd below.\n", "---\nA rule above.\n\n---\nAnd below."),
        ("---\nkey: [\n---\nText.\n", "---\nkey: [\n---\nText."),
    ],
)
def test_of_a_card_only_a_header_is_left_out(theirs: Path, tmp_path: Path, readme: str, kept: str) -> None:
    """Of a card whose header had no end, nothing was kept."""
    (theirs / "README.md").write_text(readme, newline="")
    card = (imported(theirs, tmp_path / "bundle").folder / "card.md").read_text()
    assert card.endswith(f"Its card said:\n\n{kept}\n")


def test_a_card_of_a_header_alone_says_nothing(theirs: Path, tmp_path: Path) -> None:
    (theirs / "README.md").write_text("---\ntags: []\n---")
    assert "Its card said" not in (imported(theirs, tmp_path / "bundle").folder / "card.md").read_text()


def test_a_card_that_is_no_text_is_refused(theirs: Path, tmp_path: Path) -> None:
    """It ended in a stack trace."""
    (theirs / "README.md").write_bytes("Müde".encode("latin-1"))
    with pytest.raises(RegistryError, match=r"README.md: can't be read as UTF-8 text \(byte 1\); save it as"):
        imported(theirs, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-8])


def indexed(shard: str, content: str | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        text = content or json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": shard}})
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def changed_weights(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Another content of a file that is whole in itself."""

    def write(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name, metadata={"format": "pt"})

    return write


SHARD = "model-00001-of-00001.safetensors"


def sharded(folder: Path) -> None:
    """The same weights with an index."""
    (folder / "model.safetensors").rename(folder / SHARD)
    with safe_open(folder / SHARD, framework="np") as weights:
        names = dict.fromkeys(weights.keys(), SHARD)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def lacking_in_a_shard(folder: Path) -> None:
    """An index that names a tensor, and a shard without it."""
    sharded(folder)
    changed_weights(SHARD, lambda weights: weights.pop(CONV))(folder)


def linked(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def configured(name: str, **more: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **more}))

    return change


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


CONV = "model.audio_tower.conv1.weight"
CODE = {"auto_map": {"AutoConfig": "configuration_evil.Config"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_weights, "has no weights (model.safetensors or model.safetensors.index.json); fetch the folder"),
        (pickled, "its weights are a pickle (pytorch_model.bin), which can run code when it is loaded"),
        (
            changed_weights("model.safetensors", lambda weights: weights.pop(CONV)),
            f"weights and configuration don't fit together (missing {CONV}); fetch both again",
        ),
        (
            changed_weights("model.safetensors", lambda weights: weights.update({CONV: weights[CONV][:1]})),
            f"weights and configuration don't fit together ({CONV} is [1, ",
        ),
        (lacking_in_a_shard, f"weights and configuration don't fit together (missing {CONV}); fetch both"),
        (
            changed_weights("verifier/model.safetensors", lambda weights: weights.pop("classifier.weight")),
            "classifier.weight",
        ),
        (cut_weights, "model.safetensors: not a whole safetensors file"),
        (
            indexed("model-00002-of-00002.safetensors"),
            "names model-00002-of-00002.safetensors, which is miss",
        ),
        (indexed("../secret.safetensors"), "names no files, or some outside the folder"),
        (indexed("", "{"), "index.json: not an index of weights"),
        (indexed("", "[]"), "index.json: not an index of weights"),
        (linked("more", "/etc"), "more: a link that leads out of the folder"),
        (linked("loop", "loop"), "loop: a link that leads nowhere"),
        (linked("gone", "nothing"), "gone: a link that leads nowhere"),
        (linked("inner", "verifier"), "inner: a link to a folder"),
        (written("config.json", "{"), "config.json: not a model's configuration"),
        (written("config.json", "[]"), "config.json: not a model's configuration (expected a JSON object)"),
        (configured("config.json", **CODE), "its config.json asks for code that is not part of transformers"),
        (configured("verifier/config.json", **CODE), "verifier: its config.json asks for code that is not"),
        (without("verifier/model.safetensors"), "verifier: has no weights"),
        (without("verifier/verifier.json"), "verifier: "),
        (configured("verifier/verifier.json", thresholds=[0.1]), "verifier"),
        (without("processor_config.json"), "has no processor (processor_config.json), as a released"),
        (without("tokenizer.json"), "has no tokenizer (none of merges.txt, tokenizer.json, vocab.json)"),
        (written("processor_config.json", "{"), "its processor can't be loaded"),
        (without("chat_template.jinja"), "its tokenizer has no chat template, so it can't be asked"),
    ],
)
def test_a_folder_that_could_not_answer_is_refused(
    theirs: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    """Most of these became versions that failed on every clip."""
    (tmp_path / "secret.safetensors").write_bytes(b"")
    change(theirs)
    with pytest.raises(ErvError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"frames": 8}, "frames are uint8 [8, 32, 32, 3], but this policy takes uint8 [2, 32, 32, 3]; set"),
        ({"size": 224}, "frames are uint8 [2, 224, 224, 3], but this policy takes uint8 [2, 32, 32, 3]; set"),
        ({"sample_rate": 8000}, "audio is sampled at 8000 Hz, but this policy takes 16000 Hz"),
    ],
)
def test_clips_that_the_policy_does_not_take(
    theirs: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """With settings of params.yaml for another policy, every clip failed."""
    with pytest.raises(RegistryError) as refused:
        write_external(theirs, tmp_path / "bundle", verifier=None, serving={**SERVING, **changed})
    assert said in str(refused.value)
    (theirs / "serving.json").write_text(json.dumps(SERVING))
    assert write_external(theirs, tmp_path / "bundle", verifier=None, serving={**SERVING, **changed})


def test_weights_in_several_files_are_taken(theirs: Path, tmp_path: Path) -> None:
    sharded(theirs)
    assert "policy/model.safetensors.index.json" in imported(theirs, tmp_path / "bundle").files


def test_what_a_download_keeps_beside_the_model_makes_no_other_version(theirs: Path, tmp_path: Path) -> None:
    """`hf download` writes times there, so that the same model became another version."""
    before = imported(theirs, tmp_path / "bundle").hash
    (theirs / ".cache/huggingface").mkdir(parents=True)
    (theirs / ".cache/huggingface/config.json.metadata").write_text("1764482400.0\n")
    (theirs / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert imported(theirs, tmp_path / "again").hash == before
    assert hidden(theirs) == [".cache", ".gitattributes"]


@pytest.mark.parametrize("name", ["a/b", "a:b", "", ".hidden", "a b"])
def test_a_name_that_mlflow_has_no_address_for_is_refused(theirs: Path, name: str) -> None:
    result = CliRunner().invoke(command, [str(theirs), "--name", name])
    assert result.exit_code == 2
    assert (
        f"expected letters, digits, `.`, `_` and `-`, the first a letter or a digit; got {name!r}"
        in " ".join(result.output.replace("│", " ").split())
    )

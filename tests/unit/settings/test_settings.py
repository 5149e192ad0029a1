"""params.yaml: parsed once, all faults at once, each with what was expected."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.errors import SettingsError
from erv.settings import load_settings, parse_settings
from erv.settings.faults import MOVED
from tests.support.paths import ROOT


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


OTHER = {"name": "other", "folder": "models/policy/sft"}
GATHERED = {"rewards": {"accuracy": 1.0}}
GRPO = yaml.safe_load((ROOT / "params.yaml").read_text())["grpo"]


def faults(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw)
    head, *lines = str(caught.value).splitlines()
    assert head == f"params.yaml: {len(lines)} fault" + ("s" if len(lines) > 1 else "")
    return [line.removeprefix("  - ") for line in lines]


def test_shipped_parameters_have_no_faults(root: Path) -> None:
    settings = load_settings(root / "params.yaml")
    assert settings.variants["erv"].rewards[-1].name == "explanation"
    with pytest.raises(ValueError, match="frozen"):
        settings.grpo.beta = 1.0


def test_shipped_parameters_each_have_a_comment_or_a_plain_name(root: Path) -> None:
    """Every key of the file is known to the settings and the other way round."""
    raw = yaml.safe_load((root / "params.yaml").read_text())
    assert parse_settings(raw).model_dump(by_alias=True, exclude_none=True).keys() == raw.keys()


def change(raw: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        raw = raw[section]
    raw[name] = value


def test_faults_between_sections_are_reported_together(raw: dict[str, Any]) -> None:
    for path, value in {
        "roles.train": ["films"],
        "compare.train": ["erv", "erv"],
        "register.policy": "best",
        "machine.sft.rows_per_pass": 3,
    }.items():
        change(raw, path, value)
    (line,) = faults(raw)
    assert line.split("; ") == [
        "roles.train names 'films', expected one of datasets: mafw, dfew, reasoning",
        "compare.train names a variant twice: erv, erv",
        "compare.policies names 'r1_omni', expected some of sft, erv, erv",
        "register.policy is 'best', expected one of erv, r1_omni, sft",
        "machine.sft.rows_per_pass (3) must divide sft.batch_size, 16",
    ]


def test_a_list_of_unknown_things_is_not_called_too_short(raw: dict[str, Any]) -> None:
    change(raw, "controls.kinds", ["muted"])
    (line,) = faults(raw)
    assert line.startswith("controls.kinds.0: ")
    change(raw, "controls.kinds", [])
    assert faults(raw) == ["controls.kinds: expected at least 1, found []"]


def test_all_faults_are_reported_together(raw: dict[str, Any]) -> None:
    raw["grpo"]["num_generations"] = 1
    raw["extract"]["geometry"] = "crop"
    raw["sft"]["lerning_rate"] = 0.1
    del raw["seed"]
    found = faults(raw)
    assert [line.split(":")[0] for line in found] == [
        "seed",
        "extract.geometry",
        "sft.lerning_rate",
        "grpo.num_generations",
    ]
    assert "missing" in found[0]
    assert "found 'crop'" in found[1]
    assert found[2] == "sft.lerning_rate: unknown parameter; did you mean 'learning_rate'?"
    assert "found 1" in found[3]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("policy.prompt", "../secret.txt", "a file data/prompts/NAME.txt"),
        ("policy.prompt", "data/prompts/a.txt\n", "a file data/prompts/NAME.txt"),
        ("register.model_name", "a/b", "letters, digits, `.`, `_` and `-`, the first a letter or a digit"),
        ("roles.cold_start", "Reasoning", "lower-case letters, digits and `_`, the first a letter"),
    ],
)
def test_a_text_of_the_wrong_form(raw: dict[str, Any], path: str, value: str, expected: str) -> None:
    change(raw, path, value)
    assert faults(raw)[0] == f"{path}: expected {expected}, found {value!r}"


def test_a_loss_that_averages_over_a_pass_has_one_pass(raw: dict[str, Any]) -> None:
    raw["grpo"]["loss_type"] = "bnpo"
    parse_settings(raw)
    raw["machine"]["grpo"]["rows_per_pass"] = 8
    (fault,) = faults(raw)
    assert "machine.grpo.rows_per_pass is 8 and grpo.loss_type bnpo" in fault
    assert "use rows_per_pass: null or loss_type: dapo" in fault


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_a_parameter_that_moved_names_its_new_place(raw: dict[str, Any], before: str, now: str) -> None:
    section, _, name = before.partition(".")
    raw[section][name] = None
    assert f"{before}: is now {now}; move it there" in faults(raw)
    place: Any = raw
    for part in now.split("."):
        assert part in place, f"{now} is not in params.yaml"
        place = place[part]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("register.policy", "best", "register.policy is 'best', expected one of erv, r1_omni, sft"),
        (
            "compare.policies",
            ["sft", "erv"],
            "register.gates[WAR].against is 'r1_omni', expected one of erv",
        ),
        (
            "compare.policies",
            ["sft", "r1_omni", "erv", "rft"],
            "compare.policies names 'rft', expected some of sft, r1_omni, erv",
        ),
        ("compare.policies", ["erv", "r1_omni", "erv"], "compare.policies names one twice: erv, r1_omni"),
        (
            "compare.train",
            ["r1_omni", "erv", "erv"],
            "compare.train names a variant twice: r1_omni, erv, erv",
        ),
        (
            "compare.train",
            ["best"],
            "compare.train names 'best', expected some of coherent, direct, erv, grounded",
        ),
        (
            "controls.policies",
            ["rft"],
            "controls.policies names 'rft', expected some of sft, r1_omni, erv (compare.policies)",
        ),
        ("controls.kinds", ["shuffled", "shuffled"], "controls.kinds names one twice: shuffled, shuffled"),
        (
            "variants.sft",
            {"rewards": {"format": 1}},
            "variants has an entry sft, the name of the cold start",
        ),
        (
            "variants.direct",
            {"thinks": False, "rewards": {"format": 1, "grounded": 1}},
            "thinks: false leaves nothing to say for the rewards format, grounded; use accuracy, or a reward",
        ),
        (
            "variants.rft.credit",
            "sentence",
            "credit is for method: grpo; rft learns whole completions, so leave it out",
        ),
        (
            "grpo",
            GRPO | {"credit": "sentence", "importance_sampling": "sequence"},
            "grpo: credit: sentence needs importance_sampling: token, found sequence",
        ),
        ("grpo.credit", "sentence", None),
        ("arms", [OTHER], None),
        ("arms", [OTHER, OTHER | {"folder": "elsewhere"}], "arms names one twice: other, other"),
        ("arms", [OTHER | {"name": "erv"}], "arms has an entry erv, the name of a policy that is trained"),
        (
            "arms",
            [OTHER | {"folder": "models/policy/rft"}],
            "arms.other.folder is 'models/policy/rft', which this run doesn't train, expected"
            " models/policy/NAME with one of sft, r1_omni, erv, or a folder elsewhere",
        ),
        (
            "compare.policies",
            ["sft", "other"],
            "compare.policies names 'other', expected some of sft",
        ),
        (
            "roles.cold_start",
            "emer",
            "roles.cold_start names 'emer', expected one of datasets: mafw, dfew, rea",
        ),
        (
            "datasets",
            ["mafw", "dfew", "reasoning", "overall"],
            "datasets names 'overall', which stands for all data sets together; choose another name",
        ),
        ("roles.train", ["mafw", "ravdess"], "roles.train names 'ravdess', expected one of datasets: mafw"),
        ("roles.test", ["mafw", "mafw"], "roles.test names a data set twice: mafw, mafw"),
        ("roles.train", [], "roles.train: "),
        ("machine.processes", 2, "machine: processes is 2, but accelerate is null; name a configuration in"),
        ("validate.min_seconds", 90.0, "min_seconds (90.0) must be smaller than max_seconds (60.0)"),
        ("distill.test_share", 0.49, None),
        ("ingest.fold", 0, "found 0"),
        ("runtime.threads", 0, "found 0"),
        ("variants.erv", {"rewards": {}}, "variants.erv.rewards"),
        (
            "variants.erv",
            {"rewards": [{"name": "format", "weight": 1}]},
            "variants.erv.rewards: expected names with weights, such as {format: 1.0, accuracy: 1.0}",
        ),
    ],
)
def test_one_fault(raw: dict[str, Any], path: str, value: Any, message: str | None) -> None:
    changed = copy.deepcopy(raw)
    change(changed, path, value)
    if message is None:
        parse_settings(changed)
    else:
        assert any(message in line for line in faults(changed))


def test_an_arm_is_compared_but_not_registered(raw: dict[str, Any]) -> None:
    raw["arms"] = [OTHER]
    raw["compare"]["policies"] += ["other"]
    assert parse_settings(raw).compare.policies[-1] == "other"
    raw["register"]["policy"] = "other"
    (fault,) = faults(raw)
    assert fault == (
        "register.policy is 'other', an arm that is only evaluated; register a policy that is trained"
    )


def test_an_arm_may_have_its_own_credit(raw: dict[str, Any]) -> None:
    settings = parse_settings(raw)
    assert settings.grpo.credit == "completion"
    assert settings.variants["sentences"].applied_to(settings.grpo).credit == "sentence"
    assert settings.variants["erv"].applied_to(settings.grpo) is settings.grpo


def test_a_data_set_has_a_place_and_a_reader(raw: dict[str, Any]) -> None:
    raw["roles"] = {"cold_start": "mafw", "train": ["mafw"], "test": ["mafw"]}
    raw["sft"]["max_steps"] = 0
    raw["datasets"] = ["mafw", "mine", "mafw"]
    (line,) = faults(raw)
    assert line.split("; ") == [
        "datasets names one twice: mafw, mine, mafw",
        "datasets names 'mine', which has no entry under ingest.readers",
        "datasets names 'mine', which has no entry under sources",
    ]
    raw["datasets"] = ["mafw", "mine"]
    raw["sources"]["mine"] = "data/raw/mine"
    raw["ingest"]["readers"]["mine"] = {"reader": "table", "table": "clips.csv", "split": "test"}
    assert parse_settings(raw).sources.model_dump()["mine"] == "data/raw/mine"


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ({"reader": "mafv"}, "mafv"),
        ({"reader": "dfew", "media": "film"}, "original"),
        ({"reader": "ravdess", "channels": []}, "expected at least 1, found []"),
        ({"reader": "ravdess", "channels": ["song", "song"]}, "names a channel twice"),
        ({"reader": "table", "table": "clips.xml", "split": "test"}, ".csv or .jsonl"),
        ({"reader": "table", "table": "clips.csv"}, "readers.mine: set one of split (for all clips)"),
        ({"reader": "table", "table": "c.csv", "split": "test", "columns": {"fold": "f"}}, "set one of"),
    ],
)  # fmt: skip
def test_a_faulty_reader_is_named(raw: dict[str, Any], reader: dict[str, Any], message: str) -> None:
    raw["ingest"]["readers"]["mine"] = reader
    assert any("mine" in line and message in line for line in faults(raw))


def test_shares_of_distill_leave_something_to_train_on(raw: dict[str, Any]) -> None:
    raw["distill"].update(validation_share=0.45, test_share=0.45)
    assert any("leave under 20% to train on" in line for line in faults(raw))


def test_only_the_cold_start_is_sampled_and_something_has_to_read_it(raw: dict[str, Any]) -> None:
    raw["rollouts"]["policies"] = ["erv"]
    assert any("rollouts.policies names 'erv', expected sft or nothing" in line for line in faults(raw))
    assert any("rollouts.policies needs teachers that read" in line for line in faults(raw))
    raw["rollouts"]["policies"] = ["sft"]
    raw["distill"]["teachers"] = [{"kind": "local", "model": "teacher"}]
    parse_settings(raw)


def test_without_a_reasoning_set_the_base_is_taken_as_it_is(raw: dict[str, Any]) -> None:
    raw["roles"]["cold_start"] = None
    assert faults(raw) == [
        "roles.cold_start: expected a data set (without a reasoning set, one of roles.train whose clips the"
        " cold start explains: docs/data.md), found None"
    ]
    raw["roles"]["cold_start"] = "mafw"
    assert faults(raw) == [
        "roles.cold_start is 'mafw', which has no explanations for sft to learn from; name a reasoning set,"
        " or set sft.max_steps: 0 and put a policy that explains already under policy/ of the source base"
    ]
    raw["sft"]["max_steps"] = 0
    assert parse_settings(raw).roles.cold_start == "mafw"


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not found; run this from the top of the repository"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1")
    with pytest.raises(SettingsError, match="expected a mapping of sections, found list"):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants.erv.rewards": {"explanaton": 1}}, "expected format, accuracy"),
        ({"variants.erv.rewards": {"no_such_package:f": 1}}, "no module"),
        ({"variants.erv.rewards": {"format": 0}}, "every reward has weight 0"),
        ({"variants.r1_omni.credit": "sentence"}, "credit: sentence needs a reward that reads sentences"),
        (
            {"ingest.expect": "full", "report.show_media": ["mafw", "reasoning", "dfew"]},
            r"report\.show_media names dfew, mafw, whose clips .*; set report\.show_media: \[\]",
        ),
        ({"report.show_media": ["maf"]}, "report.show_media names 'maf', expected some of ingest.readers"),
        (
            {"register.gates": [{"metric": "inconsistency", "minimum": 0.5}]},
            "gate on inconsistency: a minimum would keep better models from champion; give a maximum",
        ),
        ({"register.gates": [{"metric": "WAR", "maximum": 0.5}]}, "give a minimum"),
        ({"register.gates": [{"metric": "WAR", "minimum": 80}]}, "it is a share, so give minimum in 0 to 1"),
        (
            {"register.gates": [{"metric": "WAR", "minimum": -5, "against": "r1_omni"}]},
            "it is a difference of shares, so give minimum in -1 to 1",
        ),
        (
            {
                "variants.a": GATHERED,
                "variants.b-c": GATHERED,
                "variants.a-b": GATHERED,
                "variants.c": GATHERED,
                "compare.policies": ["erv", "r1_omni", "b-c", "c", "a", "a-b"],
                "compare.train": ["erv", "r1_omni", "b-c", "c", "a", "a-b"],
            },
            "two pairs would be called 'a-b-c' in the report; rename a policy",
        ),
        ({"variants.erv.method": "rft"}, "passes_at is for method: rft"),
        (
            {"machine.grpo.rows_per_pass": 7},
            r"machine\.grpo\.rows_per_pass \(7\) must divide grpo\.prompts_per_step x .*, 128",
        ),
        ({"machine.sft.rows_per_pass": 3}, r"sft\.rows_per_pass \(3\) must divide sft\.batch_size, 16"),
        ({"grpo.learning_rate": float("inf")}, "finite number"),
        ({"grpo.max_steps": -1}, "greater than 0"),
    ],
)
def test_what_only_grpo_would_find_out_is_found_before(
    raw: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    for name, value in changes.items():
        change(raw, name, value)
    with pytest.raises(SettingsError, match=message):
        parse_settings(raw)


@pytest.mark.parametrize(
    ("expect", "shown"), [("full", []), ("full", ["reasoning"]), ("subset", ["mafw", "dfew"])]
)
def test_clips_that_may_be_passed_on_are_shown(raw: dict[str, Any], expect: str, shown: list[str]) -> None:
    raw["ingest"]["expect"] = expect
    raw["report"]["show_media"] = shown
    assert parse_settings(raw).report.show_media == tuple(shown)


@pytest.mark.parametrize(
    ("processes", "grpo", "sft", "expected"),
    [
        (3, {}, {}, ["must divide grpo.prompts_per_step x grpo.num_generations, 128", "sft.batch_size, 16"]),
        (
            4,
            {"rows_per_pass": 64},
            {},
            ["machine.grpo.rows_per_pass (64) must divide the share of a process"],
        ),
        (
            4,
            {},
            {"rows_per_pass": 8},
            ["machine.sft.rows_per_pass (8) must divide the share", "sft.batch_size, 4"],
        ),
        (4, {"rows_per_pass": 32}, {"rows_per_pass": 4}, []),
    ],
)
def test_processes_share_a_step_evenly(
    raw: dict[str, Any], processes: int, grpo: dict[str, Any], sft: dict[str, Any], expected: list[str]
) -> None:
    raw["machine"].update(accelerate="ddp", processes=processes)
    raw["machine"]["grpo"] |= grpo
    raw["machine"]["sft"] |= sft
    if not expected:
        parse_settings(raw)
        return
    (line,) = faults(raw)
    assert all(part in line for part in expected)


MISSING = "missing; add it (the comments of the shipped params.yaml explain each parameter)"
TABLE = {"reader": "table", "table": "c.csv", "split": "test"}


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ({"reader": "reasoning", "set": 1}, ["mine.set: unknown parameter; expected one of reader"]),
        (
            {"reader": "mafw", "sett": "single", "listing": "no_caption"},
            [
                f"mine.set: {MISSING}",
                "mine.sett: unknown parameter; did you mean 'set'?",
            ],
        ),
        (
            {"reader": "mafw", "set": "single", "listing": "no_caption", "folds": 5},
            ["mine.folds: unknown parameter; expected one of listing, reader, set"],
        ),
        (
            {"reader": "table", "tabel": "c.csv", "split": "test"},
            [
                f"mine.table: {MISSING}",
                "mine.tabel: unknown parameter; did you mean 'table'?",
            ],
        ),
        (
            {**TABLE, "columns": {"clipp": "x"}},
            ["mine.columns.clipp: unknown parameter; did you mean 'clip'?"],
        ),
        (
            {"reader": "table", "table": "c.csv"},
            ["mine: set one of split (for all clips), columns.split and columns.fold"],
        ),
        ({**TABLE, "reader": "tabel"}, ["mine.reader: unknown reader 'tabel'; did you mean 'table'?"]),
        ({"set": "single"}, ["mine.reader: missing; expected one of mafw, dfew, ravdess, reasoning, table"]),
        (3, ["mine: expected a mapping, found 3"]),
        (
            {"reader": "dfew", "media": {"a": 1}},
            ["mine.media: Input should be 'original', 'avi', 'frames' or 'frames_16', found a mapping"],
        ),
    ],
)
def test_a_reader_s_fault_has_its_path_and_its_keys(
    raw: dict[str, Any], reader: Any, expected: list[str]
) -> None:
    raw["ingest"]["readers"]["mine"] = reader
    assert faults(raw) == [f"ingest.readers.{line}" for line in expected]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("variants.erv.weights", "expected one of credit, method, passes_at, rewards, thinks"),
        ("grpo.lora.rnk", "did you mean 'rank'?"),
        ("register.gates.0.minimun", "did you mean 'minimum'?"),
        ("validation", "did you mean 'validate'?"),
    ],
)
def test_an_unknown_parameter_is_held_against_its_own_section(
    raw: dict[str, Any], path: str, expected: str
) -> None:
    *sections, name = path.split(".")
    inside: Any = raw
    for part in sections:
        inside = inside[int(part) if part.isdigit() else part]
    inside[name] = 1
    assert faults(raw) == [f"{path}: unknown parameter; {expected}"]


@pytest.mark.parametrize(
    "address",
    ["localhost", "tcp://host", "tcp://host:99999", "tcp://host:0", "inproc://x:1", "host:8786", ""],
)
def test_an_address_that_is_no_scheduler_s(raw: dict[str, Any], address: str) -> None:
    raw["machine"]["extract"]["dask"] = address
    (line,) = faults(raw)
    assert line.startswith(
        "machine.extract.dask: not an address of a Dask scheduler; expected tcp://host:port or tls:"
    )


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://dask.example.org:8786", "tcp://[::1]:8786"]
)
def test_an_address_of_a_scheduler(raw: dict[str, Any], address: str) -> None:
    raw["machine"]["extract"]["dask"] = address
    assert parse_settings(raw).machine.extract.dask == address


@pytest.mark.parametrize(
    "place", ["s3:/x", "s3:x/y", "s3://", "s3:///x", "S3://x/y", "gs://x/y", "file:/x", ""]
)
@pytest.mark.parametrize("name", ["mafw", "base"])
def test_a_place_that_no_source_has(raw: dict[str, Any], name: str, place: str) -> None:
    raw["sources"][name] = place
    (line,) = faults(raw)
    assert line.startswith(f"sources.{name}: ")
    assert line.endswith(f"expected s3://bucket/prefix or a local folder, found {place!r}")


@pytest.mark.parametrize("place", ["s3://b", "s3://b/x y/z", "/data/a:b", "data/raw", "../x", "file:///data"])
def test_a_place_of_a_source(raw: dict[str, Any], place: str) -> None:
    raw["sources"]["mafw"] = place
    assert parse_settings(raw).sources.model_dump()["mafw"] == place


@pytest.mark.parametrize("value", ["best", 0.0, 1.5, True, None])
def test_thresholds_are_tuned_or_one_number(raw: dict[str, Any], value: Any) -> None:
    raw["train_erv"]["thresholds"] = value
    message = "train_erv.thresholds: expected tuned, or one number between 0 and 1"
    assert faults(raw)[0].startswith(message)
    raw["train_erv"]["thresholds"] = 0.1
    assert parse_settings(raw).train_erv.thresholds == 0.1


def test_settings_of_the_verifier_and_of_shaping_that_contradict_themselves(raw: dict[str, Any]) -> None:
    raw["train_erv"] |= {"max_steps": 10, "eval_steps": 50}
    raw["grpo"]["shaping"] |= {"min_words": 9, "max_words": 2}
    assert faults(raw) == [
        "train_erv: eval_steps (50) must not exceed max_steps (10): nothing would be evaluated or saved",
        "grpo.shaping: min_words (9) must not exceed max_words (2)",
    ]
    raw["train_erv"]["max_steps"] = 0  # nothing is trained
    raw["grpo"]["shaping"] |= {"min_words": None}
    parse_settings(raw)


@pytest.mark.parametrize(
    ("accelerate", "processes", "folder"), [(None, 1, "one"), ("ddp", 1, "ddp-1"), ("zero2", 4, "zero2-4")]
)
def test_checkpoints_of_other_processes_are_kept_apart(
    raw: dict[str, Any], accelerate: str | None, processes: int, folder: str
) -> None:
    raw["machine"].update(accelerate=accelerate, processes=processes)
    assert parse_settings(raw).machine.layout == folder


@pytest.mark.parametrize("folder", ["mnt/clips", "/", "/mnt/../etc", ""])
def test_a_root_for_links_is_an_absolute_folder(raw: dict[str, Any], folder: str) -> None:
    raw["machine"]["allowed_roots"] = [folder]
    (line,) = faults(raw)
    assert line.startswith("machine.allowed_roots.0: not a folder for links to lead to; expected an absolute")
    raw["machine"]["allowed_roots"] = ["/mnt/clips"]
    assert parse_settings(raw).machine.allowed_roots == ("/mnt/clips",)
    del raw["machine"]["allowed_roots"]
    assert parse_settings(raw).machine.allowed_roots == ()


def test_a_stage_is_placed_before_its_step(raw: dict[str, Any]) -> None:
    raw["machine"]["placement"] = {"grpo": "gpu", "grpo@r1_omni": "cpu"}
    machine = parse_settings(raw).machine
    assert machine.pool_of("grpo@erv") == "gpu"
    assert machine.pool_of("grpo@r1_omni") == "cpu"
    assert machine.pool_of("sft") is None
    raw["machine"]["placement"] = {"grpo": "my pool/1"}
    with pytest.raises(
        SettingsError, match=r"machine\.placement\.grpo: expected 1 to 64 letters, digits, `\.`"
    ):
        parse_settings(raw)

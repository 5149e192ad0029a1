"""The setting of a result, from the lock entries of all that it came from."""

from __future__ import annotations

from typing import Any

from erv.results.settings_of import origin_of, setting_of
from tests.support.result_locks import SOURCE, listing, locked


def setting(lock: dict[str, Any], policy: str = "erv", dataset: str = "mafw") -> dict[str, str]:
    return setting_of(origin_of(lock, f"evaluate@{policy}", listing), policy, dataset)


def test_it_has_what_every_stage_before_the_evaluation_ran_with() -> None:
    found = setting(locked())
    assert (
        found
        | {
            "ingest.fold": "1",
            "seed": "101",
            "extract.frames": "8",
            "extract.geometry": "stretch",
            "extract.sample_rate": "16000",
            "dataset.frames": "videos as distributed; whole frames, no face is cut out",
            "policy.family": "humanomni",
            "method": "grpo after sft",
            "rewards": "accuracy 1.0 + explanation 1.0 + format 1.0",
            "adapter": "none",
            "decoding": "greedy",
            "evaluate.max_new_tokens": "96",
            "grpo.beta": "0.02",
        }
        == found
    )
    assert found["source.mafw"].startswith("s3://erv-raw/mafw, version ")
    assert found["prompt"].startswith("data/prompts/r1_omni.txt, version ")
    assert found["source.base"].startswith("version ")
    assert not [key for key in found if key.startswith(("variants.", "report."))]


def test_the_cold_start_has_neither_rewards_nor_parameters_of_grpo() -> None:
    found = setting(locked(), "sft")
    assert found["method"] == "sft"
    assert "rewards" not in found
    assert not {"grpo.beta", "code of grpo"} & set(found)
    assert setting(locked(sft={"max_steps": 0}), "sft")["method"] == "base as it is"


def test_what_is_pinned_trained_and_decoded_otherwise_shows() -> None:
    plain = setting(locked())

    def differing(lock: dict[str, Any]) -> set[str]:
        other = setting(lock)
        return {key for key in plain | other if plain.get(key) != other.get(key)}

    assert differing(locked()) == set()
    assert differing(locked(ingest__fold=2)) == {"ingest.fold"}
    assert differing(locked(files={SOURCE: "pinned anew"})) == {"source.mafw"}
    assert differing(locked(files={"src/erv/extract": "another rule"})) == {"code of extract"}
    assert differing(locked(files={"data/prompts/r1_omni.txt": "another question"})) == {"prompt"}
    warm = {"split": "test", "max_new_tokens": 96, "temperature": 0.7, "judges": [{"kind": "lexical"}]}
    assert differing(locked(evaluate=warm)) == {"decoding"}
    assert setting(locked(evaluate=warm))["decoding"] == "sampled at temperature 0.7"
    lora = {"enabled": True, "rank": 8, "alpha": 16, "quantize": "nf4"}
    assert setting(locked(grpo={"beta": 0.02, "lora": lora}))["adapter"] == (
        "LoRA, rank 8, alpha 16, base in nf4"
    )


def test_stages_that_ran_with_different_seeds_are_told_apart() -> None:
    lock = locked()
    lock["sft"]["params"]["params.yaml"]["seed"] = 7
    assert setting(lock)["seed"] == "101 (evaluate@erv, grpo@erv, ingest@mafw, train_erv); 7 (sft)"


def test_a_stage_that_ran_again_since_says_nothing_of_an_earlier_result() -> None:
    """DVC has only its newest entry, whose parameters made another policy."""
    lock, later = locked(), locked(grpo={"beta": 0.5})
    mixed = lock | {"grpo@erv": later["grpo@erv"]}
    origin = origin_of(mixed, "evaluate@erv", listing)
    assert origin.lost == ("grpo@erv",)
    found = setting_of(origin, "erv", "mafw")
    assert "grpo.beta" not in found
    assert found["method"] == "unknown"
    assert [*origin.remarks()] == [
        "grpo@erv: has run again since, so with what it made this result's part is unknown"
    ]


def test_a_folder_whose_list_is_gone_leaves_a_remark() -> None:
    origin = origin_of(locked(), "evaluate@erv", lambda md5: None)
    assert origin.unchecked == ("extract@mafw",)
    assert setting_of(origin, "erv", "mafw")["extract.frames"] == "8"
    assert "can't be checked" in " ".join(origin.remarks())


def test_frame_folders_are_not_taken_for_videos() -> None:
    reader = {"reader": "dfew", "media": "frames_16"}
    found = setting(locked(ingest__readers__mafw=reader))
    assert found["dataset.frames"] == (
        "frame folders as distributed (frames_16); whole frames, no face is cut out"
    )
    assert setting(locked(), dataset="overall")["dataset.frames"].startswith("videos as distributed;")

"""infra/terraform: its form, what it asks for, who may do what, and what is kept for how long."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import boto3
import pytest

from erv.environment import load_environment
from tests.support.terraform import FOLDER, MISSING, installed, terraform, values

needs_terraform = pytest.mark.skipif(not installed(), reason=MISSING)


def text() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.tf")))


@needs_terraform
def test_files_have_terraforms_form():
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", "-no-color", str(FOLDER)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_variables_and_outputs_are_explained():
    blocks = re.findall(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 12
    for kind, name, body in blocks:
        assert re.search(r'^  description = ".{20,}\."', re.sub(" +=", " =", body), re.MULTILINE), name
        assert kind == "output" or re.search(r"^  type +=", body, re.MULTILINE), name
    used = set(re.findall(r"\bvar\.(\w+)", text()))
    assert {name for kind, name, _ in blocks if kind == "variable"} == used


def test_outputs_are_variables_that_erv_reads(tmp_path):
    outputs = (FOLDER / "outputs.tf").read_text()
    names = set(re.findall(r"^ +(ERV_\w+) += ", outputs, re.MULTILINE))
    assert len(names) == 6
    environment = load_environment(tmp_path, process=dict.fromkeys(names, "a-value"))
    assert environment.has_storage
    assert {name for name, value in environment.variables().items() if value == "a-value"} == names
    assert re.search(r'output "keys" \{[^}]*sensitive +=', outputs)


@needs_terraform
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("name", "Erv", "name has 3 to 42 small letters"),
        ("region", "Frankfurt", "such as eu-central-1"),
        ("remote_days", "3", "at least 14"),
        ("old_version_days", "0.5", "whole number"),
        ("multipart_days", "0", "at least 1"),
        ("kms_key_arn", "my-key", "ARN of a KMS key"),
    ],
)
def test_wrong_variables_are_refused(tmp_path: Path, variable: str, value: str, said: str):
    refused = terraform(tmp_path, "plan", "-input=false", variables={variable: value})
    assert refused.returncode != 0
    assert said in " ".join(re.sub(r"[│╷╵]", " ", refused.stderr).split())


@needs_terraform
def test_names_follow_the_variables(tmp_path: Path):
    given = {"name": "lab", "raw_bucket": "old-raw", "region": "cn-north-1"}
    assert values(tmp_path, "local.buckets", **given) == {
        "raw": "old-raw",
        "dvc": "lab-dvc",
        "mlflow": "lab-mlflow",
    }
    assert values(tmp_path, "local.arns.raw", **given) == "arn:aws-cn:s3:::old-raw"


@needs_terraform
@pytest.mark.parametrize("partition", boto3.Session().get_available_partitions())
def test_names_are_those_of_the_regions_part_of_amazon(tmp_path: Path, partition: str):
    regions = boto3.Session().get_available_regions("s3", partition)
    region = regions[0]
    said = values(tmp_path, "local.arns.raw", name="lab", region=region)
    assert said == f"arn:{partition}:s3:::lab-raw", region
    pattern = re.search(r'regex\("(.*)", var\.region', text())
    assert pattern
    assert [name for name in regions if not re.fullmatch(pattern[1], name)] == []
    # The others begin in the same way.
    starts = re.findall(r'^    "(\S+-)" += "aws-', text(), re.MULTILINE)
    assert len({next((s for s in starts if name.startswith(s)), "") for name in regions}) == 1


@needs_terraform
def test_nobody_may_delete_a_version_or_change_a_bucket(tmp_path: Path):
    policies = values(tmp_path, "local.policies", kms_key_arn="arn:aws:kms:eu-central-1:1:key/a")
    assert set(policies) == {"person", "worker", "mlflow"}
    for name, policy in policies.items():
        actions = {action for item in policy["Statement"] for action in item["Action"]}
        assert not [action for action in actions if "*" in action], name
        allowed = {"PutObject", "DeleteObject", "AbortMultipartUpload"}
        changing = {a.removeprefix("s3:") for a in actions if re.search(r":(Put|Delete|Abort|Create)", a)}
        assert changing == allowed, name
        assert {"kms:Decrypt", "kms:GenerateDataKey"} <= actions
        for item in policy["Statement"]:
            assert item["Resource"]
            assert "*" not in item["Resource"], name


@needs_terraform
def test_raw_versions_stay_and_the_rest_goes(tmp_path: Path):
    rules = values(tmp_path, "local.lifecycle", remote_days="60")
    ids = {bucket: [rule["id"] for rule in found] for bucket, found in rules.items()}
    assert ids == {
        "raw": ["unfinished-uploads"],
        "dvc": ["unfinished-uploads", "old-versions", "placed-stages"],
        "mlflow": ["unfinished-uploads", "old-versions"],
    }
    # Replaced pulses and checkpoints serve nobody: of two rules, the shorter one counts.
    placed = {"id": "placed-stages", "prefix": "remote/", "days": 60, "noncurrent_days": 1}
    assert rules["dvc"][2] == placed

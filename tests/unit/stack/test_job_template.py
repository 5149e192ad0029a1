"""The base job template of a pool of Kubernetes: what is refused before Prefect has it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.commands.run import command
from erv.errors import StackError
from erv.settings import load_settings
from erv.stack.job_template import read_job_template, worker_settings
from tests.support.paths import ROOT

OURS = ROOT / "infra/kubernetes/stack/job-template.yaml"


def test_ours_is_taken():
    assert set(read_job_template(OURS)) == {"variables", "job_configuration"}


def test_the_worker_looks_at_one_namespace_and_writes_no_key_into_jobs():
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_"
    assert worker_settings(read_job_template(OURS)) == {
        f"{prefix}OBSERVER_NAMESPACES": "erv",
        f"{prefix}WORKER_API_AUTH_STRING_SECRET_NAME": "erv",
        f"{prefix}WORKER_API_AUTH_STRING_SECRET_KEY": "ERV_PREFECT_AUTH_STRING",
    }
    for env in ("{{ env }}", {"A": "b"}):  # as Prefect's own template has it, and as it takes it, too
        job = {"spec": {"template": {"spec": {"containers": [{"env": env}]}}}}
        assert (
            worker_settings({"variables": {"properties": {}}, "job_configuration": {"job_manifest": job}})
            == {}
        )
    bare = {"variables": {"properties": {}}, "job_configuration": {"job_manifest": {}}}
    assert worker_settings(bare) == {}


def job(pod: str) -> str:
    job = f"{{job_manifest: {{spec: {{template: {{spec: {pod}}}}}}}}}"
    return f"variables: {{properties: {{}}}}\njob_configuration: {job}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "can't be read as a job template"),
        ("variables: {properties: {}}", "has the two parts `variables` and `job_configuration`"),
        ("variables: 3\njob_configuration: {}", "`variables` needs `properties`"),
        ("variables: {properties: {}}\njob_configuration: {}", "`job_configuration` needs `job_manifest`"),
        (
            "variables: {properties: {gpus: {}}}\njob_configuration: {job_manifest: {a: '{{ gpu }}'}}",
            "uses gpu, which `variables` doesn't have; it has gpus",
        ),
        (
            "variables: {properties: {namespace: erv}}\njob_configuration: {job_manifest: {}}",
            "`namespace` in `variables` is 'erv'; expected a mapping",
        ),
        (job("[1]"), "`spec` in `job_manifest` is [1]; expected a mapping"),
        (
            job("{containers: {a: 1}}"),
            "`containers` in `job_manifest` is {'a': 1}; expected a list of mappings",
        ),
        (job("{containers: [a]}"), "`containers` in `job_manifest` is ['a']; expected a list of mappings"),
        (job("{containers: [{env: A=b}]}"), "`env` in `job_manifest` is 'A=b'; expected a list of mappings"),
        (
            job("{containers: [{env: [{valueFrom: 3}]}]}"),
            "`valueFrom` in `job_manifest` is 3; expected a mapping",
        ),
        (
            job(
                "{containers: [{env: [{name: ERV_PREFECT_AUTH_STRING,"
                " valueFrom: {secretKeyRef: {name: erv}}}]}]}"
            ),
            "`secretKeyRef` of ERV_PREFECT_AUTH_STRING needs `name` and `key`",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "template.yaml"
    path.write_text(text)
    with pytest.raises(StackError) as refused:
        read_job_template(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(
        StackError, match=r"gone\.yaml: can't be read as a job template .*; see infra/kubernetes"
    ):
        read_job_template(tmp_path / "gone.yaml")


def test_it_goes_with_a_pool():
    said = CliRunner().invoke(command, ["--worker", "--job-template", str(OURS)])
    assert said.exit_code == 2
    assert "--job-template goes with --worker --pool POOL" in said.output


def test_a_stage_needs_a_gpu_per_process():
    machine = load_settings(ROOT / "params.yaml").machine
    assert {machine.processes_of(name) for name in ("sft", "grpo@erv", "evaluate@erv", "report")} == {1}
    evaluate = machine.evaluate.model_copy(update={"processes": 3})
    several = machine.model_copy(update={"accelerate": "fsdp", "processes": 4, "evaluate": evaluate})
    assert several.processes_of("sft") == several.processes_of("grpo@erv") == 4
    assert several.processes_of("evaluate@erv") == 3
    assert several.processes_of("distill") == 1

"""The manifests of infra/kubernetes: valid by the official schemas, closed, and the stack of compose.yaml."""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

from erv.environment import load_environment
from infra.kubernetes.stack import make_secret
from tests.support.dockerfile import stages
from tests.support.paths import ROOT
from tests.support.pods import REFERENCE, variables_of

FOLDER = ROOT / "infra/kubernetes/stack"
OWN_S3 = ROOT / "infra/kubernetes/own-s3"
COMPOSE = ROOT / "infra/compose"
OLDEST, NEWEST = "1.30", "1.37"  # the versions of Kubernetes that we say it is for
# What compose calls a service, and we a pod of another name.
PODS = {"worker": "worker-cpu"}
KINDS = ("Deployment", "StatefulSet", "Job")
HTTPS = {"protocol": "TCP", "port": 443}


def documents(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item is not None]


def kustomization(folder: Path) -> dict[str, Any]:
    return documents(folder / "kustomization.yaml")[0]


def pairs(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


RESOURCES = [item for name in kustomization(FOLDER)["resources"] for item in documents(FOLDER / name)]
TEMPLATE = documents(FOLDER / "job-template.yaml")[0]
SETTINGS = pairs(FOLDER / "settings.env")
SECRET = {
    name: f"{'erv:' if name == 'ERV_PREFECT_AUTH_STRING' else ''}secret0{number}"
    for number, name in enumerate(make_secret.NAMES)
}


def defaults() -> dict[str, Any]:
    return {name: item["default"] for name, item in TEMPLATE["variables"]["properties"].items()}


def job(**values: Any) -> dict[str, Any]:
    """The job of a stage as Prefect fills it in, without what Prefect itself adds."""
    template = copy.deepcopy(TEMPLATE["job_configuration"])
    filled: dict[str, Any] = apply_values(template, defaults() | values)["job_manifest"]
    pod = filled["spec"]["template"]["spec"]
    # Prefect insists on these two in the pod, where Kubernetes has no such fields and leaves them out.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    return filled


def pod_templates() -> dict[str, dict[str, Any]]:
    """By name, each with its labels (`metadata`) and its pod (`spec`); that of the stages included."""
    found = {
        item["metadata"]["name"]: item["spec"]["template"] for item in RESOURCES if item["kind"] in KINDS
    }
    return {**found, "stage": job()["spec"]["template"]}


def containers(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def all_containers() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By name, with the pod's specification; the containers of stages and of copying left out."""
    return {
        (name if number == len(pod["spec"].get("initContainers", [])) else container["name"]): (
            container,
            pod["spec"],
        )
        for name, pod in pod_templates().items()
        for number, container in enumerate(containers(pod))
    }


def compose() -> dict[str, Any]:
    """The services of compose.yaml with the secrets and the settings that we have."""
    values = {**SETTINGS, **SECRET, "ERV_PREFECT_PASSWORD": SECRET["ERV_PREFECT_AUTH_STRING"][4:]}
    values |= {"ERV_WORKSPACE": "/workspace"}
    variable = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        if not isinstance(node, str):
            return node

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            return str(values.get(match["name"]) or (match["rest"] if match["kind"] == "-" else ""))

        return variable.sub(replace, node)

    services: dict[str, Any] = filled(documents(COMPOSE / "compose.yaml")[0])["services"]
    return services


@pytest.mark.parametrize("item", RESOURCES, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_manifests_follow_the_schemas(item):
    kubernetes_validate.validate(item, NEWEST, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_kubernetes_takes_them_too(kind):
    """One of each kind: a schema takes a second to read."""
    largest = max((item for item in RESOURCES if item["kind"] == kind), key=lambda item: len(str(item)))
    kubernetes_validate.validate(largest, OLDEST, strict=True)


@pytest.mark.parametrize("values", [{}, {"gpus": 8, "shm": "32Gi", "cpu": "500m"}], ids=["usual", "more"])
def test_the_jobs_of_stages_follow_the_schema(values):
    made = job(**values)
    kubernetes_validate.validate(made, NEWEST, strict=True)
    assert "{{" not in yaml.safe_dump(made)


@pytest.mark.parametrize(
    ("kind", "path", "misspelt"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "readinessProbe"), "readynessProbe"),
        ("StatefulSet", ("spec", "template", "spec", "securityContext"), "securitycontext"),
        ("NetworkPolicy", ("spec", "podSelector"), "podSelectors"),
        ("Role", ("rules",), "rule"),
    ],
)
def test_a_misspelt_key_is_refused(kind, path, misspelt):
    broken = copy.deepcopy(next(item for item in RESOURCES if item["kind"] == kind and _has(item, path)))
    parent = broken
    for key in path[:-1]:
        parent = parent[key]
    parent[misspelt] = parent.pop(path[-1])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def _has(item: Any, path: tuple[Any, ...]) -> bool:
    for key in path:
        if isinstance(item, dict) and key not in item:
            return False
        item = item[key]
    return True


def test_the_kustomization_has_every_file_and_every_file_is_there():
    known = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "secretGenerator"}
    top = kustomization(FOLDER)
    assert set(top) == known | {"images"}
    generated = [*top["configMapGenerator"], *top["secretGenerator"]]
    assert all(set(item) <= {"name", "envs", "files", "options"} for item in generated)
    named = {name for item in generated for name in (*item.get("envs", []), *item.get("files", []))}
    kept = {
        p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.suffix in (".yaml", ".sh", ".env")
    }
    assert {*top["resources"], *named} - {"secret.env"} == kept - {"kustomization.yaml", "secret.env"}
    # The names by which the pods of stages, which Prefect makes, find them.
    fixed = {item["name"] for item in generated if item.get("options") == {"disableNameSuffixHash": True}}
    assert fixed == {"erv"}


def test_every_map_secret_and_account_that_a_pod_names_is_there():
    top = kustomization(FOLDER)
    maps = {item["name"] for item in top["configMapGenerator"]}
    accounts = {item["metadata"]["name"] for item in RESOURCES if item["kind"] == "ServiceAccount"}
    for name, pod in pod_templates().items():
        for volume in pod["spec"].get("volumes", []):
            assert volume.get("configMap", {}).get("name", "erv") in maps, name
        assert pod["spec"].get("serviceAccountName", "worker-gpu") in accounts, name
        for container in containers(pod):
            variables_of(container, SETTINGS, SECRET)  # a missing one is a KeyError
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
            claims = {"data"} if name in ("postgres", "redis", "s3") else set()
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes | claims, name


def test_with_a_store_of_ones_own_only_that_of_the_stack_is_left_out():
    top = kustomization(OWN_S3)
    assert top["resources"] == ["../stack", "network.yaml"]
    patches = [yaml.safe_load(item["patch"]) for item in top["patches"] if "target" not in item]
    removed = [item for item in patches if item.get("$patch") == "delete"]
    (changed,) = [item for item in patches if item not in removed]
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    assert (changed["kind"], changed["metadata"]["name"], container["name"]) == (
        "Deployment",
        "mlflow",
        "mlflow",
    )
    before = {item["name"] for item in all_containers()["mlflow"][0]["env"]}
    assert {item["name"] for item in container["env"]} <= before, (
        "else the old key would stay beside the new one"
    )
    kinds = {(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in removed}
    there = {(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in RESOURCES}
    assert kinds <= there
    of_s3 = {
        (item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in documents(FOLDER / "s3.yaml")
    }
    assert kinds == of_s3 | {("networking.k8s.io/v1", "NetworkPolicy", "to-s3")}


def test_only_who_uses_a_store_of_ones_own_reaches_it():
    """Prefect could reach all the world at port 443."""
    (opened,) = [item for item in kustomization(OWN_S3)["patches"] if "target" in item]
    (rule,) = yaml.safe_load(opened["patch"])
    assert rule == {"op": "add", "path": "/spec/egress/-", "value": {"ports": [HTTPS]}}
    policies = [
        item["spec"]
        for item in RESOURCES
        if item["kind"] == opened["target"]["kind"]
        and re.fullmatch(opened["target"]["name"], item["metadata"]["name"])
    ]
    (added,) = documents(OWN_S3 / "network.yaml")
    kubernetes_validate.validate(added, NEWEST, strict=True)
    assert added["spec"]["egress"] == [{"ports": [HTTPS]}]
    policies.append(added["spec"])
    reached = {
        name
        for name, pod in pod_templates().items()
        for policy in policies
        if selects(policy["podSelector"], pod["metadata"]["labels"])
    }
    assert reached == {who for who, server in WANTED if server == "s3"} - {"buckets"}


def command_of(container: Mapping[str, Any]) -> list[str]:
    given = variables_of(container, SETTINGS, SECRET)
    return [REFERENCE.sub(lambda match: given[match[1]], word) for word in container["args"]]


def test_the_stack_is_that_of_compose():
    ours = all_containers()
    services = compose()
    assert {PODS.get(name, name) for name in services} <= set(ours)
    for name, service in services.items():
        container, pod = ours[PODS.get(name, name)]
        assert container["image"] == service["image"], name
        expected = service.get("command", [])
        if name == "worker":  # /tmp of a pod is on a disk, so there is no other folder to be made
            expected = [*expected[-1].rpartition("&& exec ")[2].split(), "--pool=cpu"]
        assert not expected or command_of(container) == expected, name
        assert container.get("workingDir") == service.get("working_dir"), name
        limits = service["deploy"]["resources"]["limits"]
        memory = limits["memory"].replace("g", "Gi").replace("m", "Mi")
        assert container["resources"]["limits"] == {"cpu": limits["cpus"], "memory": memory}, name
        if "stop_grace_period" in service:
            assert f"{pod['terminationGracePeriodSeconds']}s" == service["stop_grace_period"], name
        if "shm_size" in service:
            (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
            assert shm["emptyDir"]["sizeLimit"] == service["shm_size"].replace("mb", "Mi"), name


def test_variables_are_those_of_compose():
    ours = all_containers()
    # What others are put together from, and places in a pod.
    parts = {*make_secret.NAMES, "PGDATA", "ERV_WORKER_HOME", "DVC_SITE_CACHE_DIR"}
    for name, service in compose().items():
        given = variables_of(ours[PODS.get(name, name)][0], SETTINGS, SECRET)
        expected = dict(service.get("environment", {}))
        expected.pop("TMPDIR", None)  # /tmp of a pod is on a disk
        assert {key: given.get(key) for key in expected} == expected, name
        assert set(given) - set(expected) <= set(SETTINGS) | parts, name


def test_settings_are_the_usual_ones_of_compose():
    example = pairs(COMPOSE / ".env.example")
    assert {name: value for name, value in SETTINGS.items() if example.get(name, value) != value} == {}
    assert {name for name in example if "HOSTS" in name or "BUCKET" in name} <= set(SETTINGS)


def test_services_listen_where_compose_says():
    services = compose()
    ports = {
        item["metadata"]["name"]: item["spec"]["ports"][0]["port"]
        for item in RESOURCES
        if item["kind"] == "Service"
    }
    assert set(ports) == {"postgres", "redis", "s3", "mlflow", "prefect"}
    ours = all_containers()
    for name, port in ports.items():
        (listens,) = ours[name][0]["ports"]
        assert listens["containerPort"] == port, name
        if "ports" in services[name]:
            assert services[name]["ports"][0].endswith(f":{port}"), name
    for item in RESOURCES:  # nothing is published beyond the cluster
        if item["kind"] == "Service":
            assert item["spec"].get("type", "ClusterIP") == "ClusterIP"
    for variable in ("ERV_S3_ENDPOINT", "ERV_MLFLOW_URI", "ERV_PREFECT_API_URL"):
        host, port = re.match(r"http://([\w-]+):(\d+)", SETTINGS[variable]).groups()
        assert ports[host] == int(port), variable


def test_databases_are_made_as_in_compose():
    script = "postgres/10-databases.sh"
    assert (FOLDER / script).read_bytes() == (COMPOSE / script).read_bytes()


@pytest.mark.parametrize("name", sorted(pod_templates()))
def test_pods_have_few_rights(name):
    pod = pod_templates()[name]
    around = pod["spec"]["securityContext"]
    assert around["runAsNonRoot"] is True
    assert around["runAsUser"] >= 999
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
    # Addresses of services as variables: PREFECT_PORT and MLFLOW_PORT mean something else to those programs.
    assert pod["spec"]["enableServiceLinks"] is False
    if name != "worker-gpu":  # the one that talks to Kubernetes
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert not container["image"].endswith("latest")
    for volume in pod["spec"].get("volumes", []):
        assert set(volume) & {"emptyDir", "configMap"}, volume


def test_who_runs_stages_or_handles_no_signal_is_not_the_first_process():
    """Compose has `init` for all; the others are servers that end at SIGTERM themselves."""
    shared = {name for name, pod in pod_templates().items() if pod["spec"].get("shareProcessNamespace")}
    assert shared == {"prefect-services", "worker-cpu", "stage"}


def test_a_workers_pod_reaches_its_servers(tmp_path):
    for name in ("worker-cpu", "stage"):
        given = variables_of(pod_templates()[name]["spec"]["containers"][0], SETTINGS, SECRET)
        environment = load_environment(tmp_path, process=given)
        assert environment.has_storage
        assert environment.mlflow_token == SECRET["ERV_MLFLOW_TOKEN"]
        assert environment.prefect_auth_string == SECRET["ERV_PREFECT_AUTH_STRING"]
    # No pod but those of databases has their passwords.
    knows = {
        name
        for name, pod in pod_templates().items()
        for container in containers(pod)
        if "PASSWORD" in str(container.get("env"))
    }
    assert knows == {"postgres", "redis", "mlflow", "prefect", "prefect-services"}


def test_web_servers_are_asked_by_a_name_that_they_know():
    hosts = {
        "mlflow": [host.removesuffix(":*") for host in SETTINGS["ERV_MLFLOW_ALLOWED_HOSTS"].split(",")],
        "prefect": SETTINGS["ERV_PREFECT_ALLOWED_HOSTS"].split(","),
    }
    for name, known in hosts.items():
        container = all_containers()[name][0]
        assert container["args"][:4] == ["python", "-m", "erv.stack.server", name]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            (header,) = container[probe]["httpGet"]["httpHeaders"]
            assert header["name"] == "Host"
            assert header["value"] in known, name
        assert name in known


WANTED = {
    ("mlflow", "postgres"),
    ("prefect", "postgres"),
    ("prefect-services", "postgres"),
    ("prefect", "redis"),
    ("prefect-services", "redis"),
    ("prefect-services", "prefect"),
    ("mlflow", "s3"),
    ("buckets", "s3"),
    ("worker-gpu", "prefect"),
    *((who, server) for who in ("worker-cpu", "stage") for server in ("s3", "mlflow", "prefect")),
}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a pod with these labels is meant."""
    wanted = selector.get("matchLabels", {}).items()
    listed = selector.get("matchExpressions", [])
    assert all(item["operator"] == "In" for item in listed)
    return wanted <= labels.items() and all(labels.get(item["key"]) in item["values"] for item in listed)


def test_who_may_talk_to_whom():
    policies = [item["spec"] for item in RESOURCES if item["kind"] == "NetworkPolicy"]
    labels = {name: pod["metadata"]["labels"] for name, pod in pod_templates().items()}

    def allowed(direction: str, end: str, here: str, there: str) -> bool:
        return any(
            selects(peer["podSelector"], labels[there])
            for policy in policies
            if selects(policy["podSelector"], labels[here])
            for rule in policy.get(direction, [])
            for peer in rule.get(end, [])
            if "podSelector" in peer
        )

    for direction in ("Ingress", "Egress"):  # without these, what isn't allowed is not refused
        assert any(p["podSelector"] == {} and direction in p["policyTypes"] for p in policies)
    found = {
        (here, there)
        for here in labels
        for there in labels
        if allowed("egress", "to", here, there) and allowed("ingress", "from", there, here)
    }
    assert found == WANTED
    # To any address: names, and for one pod the API of Kubernetes.
    open_to_all = [policy for policy in policies for rule in policy.get("egress", []) if "to" not in rule]
    assert [policy["podSelector"] for policy in open_to_all] == [{"matchLabels": {"app": "worker-gpu"}}]


def test_the_worker_of_jobs_makes_them_in_its_namespace_and_no_more():
    (role,) = [item for item in RESOURCES if item["kind"] == "Role"]
    verbs = {(rule["resources"][0], verb) for rule in role["rules"] for verb in rule["verbs"]}
    looks = {(what, verb) for what in ("jobs", "pods") for verb in ("get", "list", "watch")}
    assert verbs == looks | {("jobs", "create"), ("jobs", "delete"), ("pods/log", "get")}
    assert not [item for item in RESOURCES if item["kind"].startswith("Cluster")]
    container = pod_templates()["worker-gpu"]["spec"]["containers"][0]
    template = container["args"][-1].removeprefix("--job-template=")
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "template"]
    assert template == f"{mount['mountPath']}/job-template.yaml"
    assert defaults()["namespace"] == kustomization(FOLDER)["namespace"] == "erv"


def test_every_job_variable_is_explained_and_used():
    used = set(re.findall(r"\{\{ (\w+) \}\}", yaml.safe_dump(TEMPLATE["job_configuration"])))
    properties = TEMPLATE["variables"]["properties"]
    assert set(properties) == used | {"env"}  # which Prefect adds to the variables of the template
    for name, item in properties.items():
        assert {"type", "title", "description", "default"} <= set(item), name
        assert not isinstance(item["default"], str) or re.search(item.get("pattern", ""), item["default"]), (
            name
        )
    assert TEMPLATE["variables"]["additionalProperties"] is False, "a misspelt one is refused"


def test_a_stage_has_gpus_shared_memory_and_a_disk():
    pod = job(gpus=4, shm="16Gi", scratch="500Gi", memory="256Gi")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "erv:gpu"
    for part in ("requests", "limits"):
        assert container["resources"][part]["nvidia.com/gpu"] == 4
        assert container["resources"][part]["memory"] == "256Gi"
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert volumes["shm"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert volumes["home"] == {"sizeLimit": "500Gi"}
    # Else a pod comes to a node without that room, and is evicted when the disk is full.
    assert container["resources"]["requests"]["ephemeral-storage"] == "500Gi"
    assert "ephemeral-storage" not in container["resources"]["limits"], "less than all volumes together"
    places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert places["/dev/shm"] == "shm"
    assert pod["restartPolicy"] == "Never"
    assert job()["spec"]["backoffLimit"] == 0, "the next attempt is the coordinator's"


@pytest.mark.parametrize("name", ["worker-cpu", "mlflow"])
def test_pods_with_much_on_the_disk_are_promised_some(name):
    pod = pod_templates()[name]["spec"]
    most = max(int(v["emptyDir"]["sizeLimit"].removesuffix("Gi")) for v in pod["volumes"])
    wanted = pod["containers"][0]["resources"]["requests"]["ephemeral-storage"]
    assert 20 <= int(wanted.removesuffix("Gi")) <= most


def test_jobs_may_be_changed_by_an_upgrade():
    """`kubectl apply` can't change one that is there: it ended with an error after a change of the image."""
    jobs = [item for item in RESOURCES if item["kind"] == "Job"]
    page = " ".join((ROOT / "infra/README.md").read_text(encoding="utf-8").split())
    for item in jobs:
        assert item["spec"]["ttlSecondsAfterFinished"] > 0
        name = item["metadata"]["name"]
        delete = f"kubectl delete job {name} --namespace erv --ignore-not-found"
        assert f"`{delete}`, then `kubectl apply -k .`" in page, name


def test_images_have_the_code_that_pods_start_with():
    blocks = stages(COMPOSE / "Dockerfile")
    for target in ("cpu", "gpu"):  # `server` is made from `cpu`
        copied = set(re.findall(r"^COPY (\w+) \1$", blocks[target], re.MULTILINE))
        assert {"src", "flows"} <= copied, target
    assert "prefect-kubernetes==" in (COMPOSE / "requirements-server.txt").read_text(encoding="utf-8")


def test_make_secret_fills_every_secret_and_never_overwrites(tmp_path, capsys):
    previous = os.umask(0)
    try:
        assert make_secret.main(tmp_path) == 0
    finally:
        os.umask(previous)
    written = pairs(tmp_path / "secret.env")
    assert stat.S_IMODE((tmp_path / "secret.env").stat().st_mode) == 0o600
    assert tuple(written) == make_secret.NAMES
    assert len(set(written.values())) == len(written)
    assert all(re.fullmatch(r"(erv:)?[0-9a-f]{48}", value) for value in written.values())
    used = {
        item["valueFrom"]["secretKeyRef"]["key"]
        for container, _ in all_containers().values()
        for item in container.get("env", [])
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    assert used == set(written)
    before = (tmp_path / "secret.env").read_bytes()
    assert make_secret.main(tmp_path) == 1
    assert (tmp_path / "secret.env").read_bytes() == before
    assert "exists" in capsys.readouterr().err
    assert (FOLDER / ".gitignore").read_text() == "secret.env\n"


def test_no_secret_and_no_address_of_a_registry_is_committed():
    assert not re.search(r"PASSWORD|_KEY|TOKEN|AUTH", "".join(SETTINGS))
    for path in sorted(p for p in FOLDER.rglob("*") if p.suffix in (".yaml", ".env", ".py", ".sh")):
        if path.name != "secret.env":
            hosts = set(re.findall(r"https?://([^/:\s\"']+)", path.read_text(encoding="utf-8")))
            assert hosts <= {"s3", "mlflow", "prefect", "127.0.0.1"}, path.name

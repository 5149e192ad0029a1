"""The compose stack: valid by the official schema, closed by default, complete, and free of secrets."""

import ast
import copy
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from erv.environment import load_environment
from infra.compose import make_env
from tests.support.dockerfile import stages
from tests.support.paths import ROOT

FOLDER = ROOT / "infra" / "compose"
FILES = ("compose.yaml", "compose.gpu.yaml")
# ${NAME}, ${NAME:-default}, ${NAME:?message}; $$ is a literal dollar.
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
SECRET = re.compile(r"PASSWORD|_KEY$|TOKEN|SECRET")

# What a worker needs to reach its servers: the keys of a stack.env.
WORKER_VARIABLES = {
    "ERV_S3_ENDPOINT",
    "ERV_S3_ACCESS_KEY",
    "ERV_S3_SECRET_KEY",
    "ERV_S3_REGION",
    "ERV_RAW_BUCKET",
    "ERV_DVC_BUCKET",
    "ERV_ARTIFACT_BUCKET",
    "ERV_MLFLOW_URI",
    "ERV_MLFLOW_TOKEN",
    "ERV_MLFLOW_EXPERIMENT",
    "ERV_PREFECT_API_URL",
    "ERV_PREFECT_AUTH_STRING",
    "ERV_PREFECT_UI_URL",
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def example_variables() -> dict[str, str]:
    lines = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def resolve(node: Any, values: dict[str, str]) -> Any:
    """Compose's interpolation, as far as our files use it; an unset required variable is a KeyError."""
    if isinstance(node, dict):
        return {key: resolve(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve(value, values) for value in node]
    if not isinstance(node, str):
        return node

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        value = values.get(match["name"], "")
        if value:
            return value
        if match["kind"] == "-":
            return str(match["rest"])
        raise KeyError(match["name"])

    return VARIABLE.sub(replace, node)


def variables_of(name: str) -> list[re.Match[str]]:
    text = re.sub(r"(^|\s)#.*$", "", (FOLDER / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [match for match in VARIABLE.finditer(text) if match["name"]]


def filled() -> dict[str, str]:
    secrets = {name: "0123456789abcdef" for name, value in example_variables().items() if SECRET.search(name)}
    return {**example_variables(), **secrets}


@pytest.fixture(scope="module")
def validator() -> jsonschema.protocols.Validator:
    schema = get_builtin_schema("vendor.compose-spec")
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All services of compose.yaml, resolved."""
    return resolve(load("compose.yaml"), filled())["services"]


@pytest.fixture(scope="module")
def gpu_services() -> dict[str, Any]:
    """The override alone, resolved."""
    return resolve(load("compose.gpu.yaml"), filled())["services"]


@pytest.mark.parametrize("name", FILES)
def test_files_follow_the_compose_schema(name, validator):
    errors = [error.message for error in validator.iter_errors(resolve(load(name), filled()))]
    assert errors == []


@pytest.mark.parametrize(
    ("path", "misspelt"),
    [
        (("services", "mlflow", "healthcheck"), "heathcheck"),
        (("services", "worker", "depends_on"), "depend_on"),
        (("services", "s3", "ports"), "port"),
        (("volumes",), "volume"),
    ],
)
def test_a_misspelt_key_is_refused(path, misspelt, validator):
    broken = copy.deepcopy(resolve(load("compose.yaml"), filled()))
    parent = broken
    for key in path[:-1]:
        parent = parent[key]
    parent[misspelt] = parent.pop(path[-1])
    assert any(misspelt in error.message for error in validator.iter_errors(broken))


def test_every_variable_is_documented_and_every_documented_one_is_used():
    used = {match["name"] for name in FILES for match in variables_of(name)}
    assert used == set(example_variables())


def test_defaults_in_the_file_are_those_of_the_example():
    example = example_variables()
    defaults = {(m["name"], m["rest"]) for name in FILES for m in variables_of(name) if m["kind"] == "-"}
    assert {(name, value) for name, value in defaults if example[name] != value} == set()


def test_no_secret_in_the_repository_and_none_has_a_default():
    secrets = {name for name in example_variables() if SECRET.search(name)}
    assert len(secrets) == 8
    assert {name: example_variables()[name] for name in secrets} == dict.fromkeys(secrets, "")
    for name in FILES:
        for match in variables_of(name):
            if match["name"] in secrets:
                assert match["kind"] == "?", match["name"]
    for file in FILES:
        for service in load(file)["services"].values():
            for key, value in service.get("environment", {}).items():
                if SECRET.search(key) or key == "REDISCLI_AUTH":
                    assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key


@pytest.mark.parametrize("missing", sorted(n for n in example_variables() if SECRET.search(n)))
def test_the_stack_does_not_start_without_its_secrets(missing):
    with pytest.raises(KeyError, match=missing):
        resolve(load("compose.yaml"), {**filled(), missing: ""})


def test_ports_are_published_on_this_machine_only(services):
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert set(published) == {"s3", "mlflow", "prefect"}
    assert all(port.startswith("127.0.0.1:") for port in published.values())
    without_env = {name: value for name, value in filled().items() if name != "ERV_BIND"}
    unset = resolve(load("compose.yaml"), without_env)["services"]
    assert all(port.startswith("127.0.0.1:") for s in unset.values() for port in s.get("ports", []))
    assert not any("network_mode" in service or service.get("privileged") for service in services.values())


def test_databases_are_on_the_internal_network_alone(services):
    assert load("compose.yaml")["networks"]["back"]["internal"] is True
    assert services["postgres"]["networks"] == ["back"]
    assert services["redis"]["networks"] == ["back"]
    assert "back" not in services["worker"]["networks"]


def test_images_are_pinned(services):
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert tag, name
        assert "latest" not in tag, name
        if "build" not in service:  # from elsewhere: down to the patch release
            assert re.match(r"\d+\.\d+", tag), f"{name}: {image}:{tag}"
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-", dockerfile, re.MULTILINE)


def test_services_run_with_few_rights_and_bounds(services):
    for name, service in services.items():
        user = str(service["user"]).split(":")[0]
        assert user not in ("", "0", "root"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["restart"] in ("unless-stopped", "on-failure:5"), name


def test_who_waits_for_whom(services):
    one_shot = {name for name, service in services.items() if service["restart"].startswith("on-failure")}
    assert one_shot == {"buckets", "mlflow-migrate"}
    without_port = {"prefect-services"}
    for name, service in services.items():
        assert ("healthcheck" in service) == (name not in one_shot | without_port), name
        for other, condition in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in one_shot else "service_healthy"
            assert condition == {"condition": expected}, f"{name} -> {other}"
    assert set(services["worker"]["depends_on"]) == {"buckets", "mlflow", "prefect"}


def test_the_worker_knows_all_its_servers(services, tmp_path):
    given = services["worker"]["environment"]
    assert set(given) >= WORKER_VARIABLES
    environment = load_environment(tmp_path, process=given)
    assert environment.has_storage
    assert set(environment.variables()) >= WORKER_VARIABLES
    # Each address names a service of this stack, and the port that it listens on.
    for variable in ("ERV_S3_ENDPOINT", "ERV_MLFLOW_URI", "ERV_PREFECT_API_URL"):
        host, port = re.match(r"http://([\w-]+):(\d+)", given[variable]).groups()
        assert services[host]["ports"][0].endswith(f":{port}"), variable


def test_dvc_of_the_worker_writes_where_it_may(services):
    """Its default, /var/tmp/dvc, is on the read-only file system: no stage ran."""
    folder = Path(services["worker"]["environment"]["DVC_SITE_CACHE_DIR"])
    (volume,) = services["worker"]["volumes"]
    assert folder.is_relative_to(volume["target"])


def test_a_workspace_that_is_missing_is_not_made(services):
    """Docker made it, as root's, and the worker could write nothing there."""
    (volume,) = services["worker"]["volumes"]
    assert (volume["type"], volume["source"]) == ("bind", example_variables()["ERV_WORKSPACE"])
    assert volume["bind"] == {"create_host_path": False}
    assert volume["target"] == services["worker"]["working_dir"]


def test_temporary_files_of_the_worker_are_on_a_disk(services, tmp_path):
    """A policy that is published goes through them: in /tmp, which is main memory, it ended the worker."""
    worker = services["worker"]
    folder = Path(worker["environment"]["TMPDIR"])
    assert folder.is_relative_to(worker["volumes"][0]["target"])
    assert folder not in map(Path, worker["tmpfs"])
    # Python takes another folder, without a word, if this one is not there when the worker begins.
    here = tmp_path / folder.relative_to(worker["working_dir"])
    (here / "left").mkdir(parents=True)
    erv = tmp_path / "bin/erv"
    erv.parent.mkdir()
    erv.write_text('#!/bin/sh\necho "$$ $*"\n')
    erv.chmod(0o755)
    environment = {"PATH": f"{erv.parent}:/usr/bin:/bin"}
    with subprocess.Popen(
        worker["command"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        said, _ = process.communicate(timeout=60)
    assert said == f"{process.pid} run --worker\n", "it gets the signals itself"
    assert [*here.iterdir()] == [], "what stages that were killed left there"
    assert {stat.S_IMODE(place.stat().st_mode) for place in (here, here.parent)} == {0o700}


def test_no_password_is_in_a_list_of_processes(services):
    """A word of a command that a shell puts a secret into is one that every user of the machine can read."""
    for name, service in services.items():
        words = [str(word) for word in service.get("command", [])]
        shell = words[2] if words[:2] == ["sh", "-c"] else ""
        # Given to the server as a file.
        shell = re.sub(r"<<END\n.*^END$", "", shell, flags=re.DOTALL | re.MULTILINE)
        assert not re.findall(r"\$(?!@)", shell), name
        assert "0123456789abcdef" not in " ".join(words), name
    script = (FOLDER / "postgres/10-databases.sh").read_text(encoding="utf-8")
    assert not re.search(r"--(set|variable)[ =]password", script)


def test_redis_gets_the_signals_and_its_password(services, tmp_path):
    """Behind a pipe, the shell got SIGTERM and the server was killed."""
    server = tmp_path / "redis-server"
    server.write_text('#!/bin/sh\necho "$$ $*"\ncat\n')
    server.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": "a$b`c"}
    command = services["redis"]["command"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    first, *settings = said.splitlines()
    assert first == f"{process.pid} -"
    assert settings == ["requirepass a$b`c", "appendonly yes", "dir /data"]


def test_artifacts_pass_through_a_disk(services):
    """MLflow writes each to a temporary file: a model in /tmp, which is main memory, ended the server."""
    mlflow = services["mlflow"]
    folder = mlflow["environment"]["TMPDIR"]
    assert folder not in mlflow["tmpfs"]
    assert mlflow["volumes"] == [f"mlflow-tmp:{folder}"]
    # A new volume takes the owner of the image's folder.
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(rf"install --directory --owner erv --group erv .*{folder}\b", dockerfile)


def test_images_of_others_can_be_replaced_where_no_registry_is_reached():
    chosen = {f"{name}_IMAGE": f"localhost/{name.lower()}:1" for name in ("PYTHON", "POSTGRES", "REDIS")}
    services = resolve(load("compose.yaml"), {**filled(), **chosen})["services"]
    assert services["postgres"]["image"] == "localhost/postgres:1"
    assert services["redis"]["image"] == "localhost/redis:1"
    worker = resolve(load("compose.gpu.yaml"), {**filled(), **chosen})["services"]["worker"]
    for service in (services["worker"], services["mlflow"], worker):
        assert service["build"]["args"]["PYTHON_IMAGE"] == "localhost/python:1"


def test_the_workers_machine_keeps_its_name(services):
    """It is in the name of its pool and in "who started it"; a container's own name is another each time."""
    assert services["worker"]["hostname"] == example_variables()["ERV_WORKER_HOST"] == "erv-compose"


def test_what_a_service_logs_in_with_is_what_the_other_side_was_given(services):
    database = services["postgres"]["environment"]
    assert (
        f"mlflow:{database['MLFLOW_DB_PASSWORD']}@postgres"
        in services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    )
    server, background = services["prefect"]["environment"], services["prefect-services"]["environment"]
    assert {k: v for k, v in server.items() if k != "PREFECT_UI_API_URL"} == background
    assert (
        f":{services['redis']['environment']['REDISCLI_AUTH']}@redis" in server["PREFECT_SERVER_DOCKET_URL"]
    )
    assert (
        services["s3"]["environment"]["AWS_SECRET_ACCESS_KEY"]
        == services["worker"]["environment"]["ERV_S3_SECRET_KEY"]
    )
    worker = services["worker"]["environment"]
    assert services["mlflow"]["environment"]["ERV_MLFLOW_TOKEN"] == worker["ERV_MLFLOW_TOKEN"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["ERV_PREFECT_AUTH_STRING"]
    assert "--hosts=prefect,localhost,127.0.0.1" in services["prefect"]["command"]
    assert re.search(r"(^|,)mlflow:\*", services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"])


def test_telemetry_is_off(services):
    for name, service in services.items():
        if service["image"].startswith("erv:"):
            quiet = service["environment"]
            assert (quiet["DO_NOT_TRACK"], quiet["MLFLOW_DISABLE_TELEMETRY"]) == ("1", "true"), name
            assert quiet["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", name
    assert "-master.telemetry=false" in services["s3"]["command"]


def test_only_s3_of_the_store_listens_beyond_its_container(services):
    command = services["s3"]["command"]
    assert "-ip.bind=127.0.0.1" in command
    assert "-s3.ip.bind=0.0.0.0" in command
    # Certificates first: the gRPC of S3 listens where S3 does, and takes new accounts.
    assert command[:3] == ["sh", "-c", 'python -m erv.stack.s3_keys . && exec "$@"']


def test_web_servers_are_behind_the_gate(services):
    for name in ("mlflow", "prefect"):
        assert services[name]["command"][:4] == ["python", "-m", "erv.stack.server", name]
    assert services["prefect"]["environment"]["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"


def test_the_override_gives_the_worker_a_gpu_and_changes_nothing_else(gpu_services):
    assert set(gpu_services) == {"worker"}
    worker = gpu_services["worker"]
    assert set(worker) == {"image", "build", "shm_size", "deploy"}
    assert (worker["image"], worker["build"]["target"]) == ("erv:gpu", "gpu")
    assert worker["deploy"] == {
        "resources": {
            "reservations": {"devices": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}
        }
    }


def test_programs_that_services_start_from_the_image_are_copied_into_it(services):
    blocks = stages(FOLDER / "Dockerfile")
    for name, service in services.items():
        words = [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]
        for program in [Path(word).name for word in words if word.startswith("/opt/erv/")]:
            assert f"infra/compose/{program}" in blocks[service["build"]["target"]], f"{name}: {program}"
            assert f"infra/compose/{program}" in blocks["gpu"] or name != "worker"


def test_the_workers_images_have_the_sentence_encoder_of_the_judge():
    """`make install` fetches it into the environment; without it, no pipeline started in a container."""
    blocks = stages(FOLDER / "Dockerfile")
    for name in ("cpu", "gpu"):
        (command,) = re.findall(r"^RUN .*requirements/encoder\.txt$", blocks[name], re.MULTILINE)
        assert {"--require-hashes", "/opt/venv/wheels"} <= set(command.split())


def test_builds_name_stages_that_exist_and_copies_exist(services, gpu_services):
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    images = stages(FOLDER / "Dockerfile")
    for name, service in [*services.items(), *gpu_services.items()]:
        if "build" in service:
            assert service["build"]["target"] in images, name
            assert (FOLDER / service["build"]["context"]).resolve() == ROOT, name
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    sources = [s for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for s in line.split()[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source}: the .dockerignore keeps it from the builder"
    # Each image ends as an ordinary user.
    for name in ("cpu", "server", "gpu"):
        assert re.findall(r"^USER (\w+)", images[name], re.MULTILINE)[-1] == "erv", name


def test_no_image_repeats_the_steps_of_another():
    """Those of `cpu` stood in `gpu` word for word, and a change of one could be forgotten in the other."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line for line in text.splitlines() if line.startswith(("RUN ", "COPY "))]
    assert len(steps) == len(set(steps))


def test_no_address_of_a_registry_or_index_is_committed():
    for path in sorted(p for p in FOLDER.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        hosts = set(re.findall(r"https?://([^/:\s\"']+)", path.read_text(encoding="utf-8")))
        assert hosts <= {"s3", "mlflow", "prefect", "127.0.0.1"}, path.name
    assert re.findall(r"^ARG TORCH_INDEX=(.*)$", (FOLDER / "Dockerfile").read_text(), re.M) == ['""']


def test_server_requirements_are_exact_and_not_in_a_lock_already():
    lines = (FOLDER / "requirements-server.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)
    locked = {
        line.split("==")[0]
        for lock in (ROOT / "requirements").glob("*.lock")
        for line in lock.read_text().splitlines()
    }
    assert not locked & {pin.split("==")[0] for pin in pins}
    assert "redis" in locked  # prefect-redis is installed without its dependencies


def test_make_env_fills_every_secret_and_never_overwrites(tmp_path, capsys):
    (tmp_path / ".env.example").write_text((FOLDER / ".env.example").read_text())
    previous = os.umask(0)
    try:
        assert make_env.main(tmp_path) == 0
    finally:
        os.umask(previous)
    written = dict(
        line.split("=", 1)
        for line in (tmp_path / ".env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    values = [value for name, value in written.items() if SECRET.search(name)]
    assert len(set(values)) == 8
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)
    resolve(load("compose.yaml"), written)

    before = (tmp_path / ".env").read_bytes()
    assert make_env.main(tmp_path) == 1
    assert (tmp_path / ".env").read_bytes() == before
    assert "exists" in capsys.readouterr().err
    assert "\n.env\n" in "\n" + (FOLDER / ".gitignore").read_text()


def test_make_env_needs_nothing_installed():
    tree = ast.parse((FOLDER / "make_env.py").read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names == {"__future__", "os", "pathlib", "re", "secrets", "sys"}

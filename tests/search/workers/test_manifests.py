"""The cluster files of the documentation say what the program understands."""

import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from stg_tune.cli.main import parser
from stg_tune.search.workers.cluster import OBJECT_STORE

DOCS = Path(__file__).parents[3] / "docs"


def manifest(name):
    return yaml.safe_load((DOCS / "cluster" / name).read_text(encoding="utf-8"))


def commands(text):
    """Every `stg-tune ...` of a text, as words."""
    found = re.findall(r"stg-tune ((?:search|resume|replay) [^;\n#'`|)]*)", text.replace("\\\n", " "))
    return [shlex.split(re.split(r"\s{2,}", line)[0]) for line in found]


@pytest.mark.parametrize("name", ["cluster.md", "cluster/cluster.yaml", "cluster/rayjob.yaml"])
def test_every_command_is_one(name):
    found = [words for words in commands((DOCS / name).read_text(encoding="utf-8")) if len(words) > 1]
    assert found
    for words in found:
        if words[0] != "replay":  # in words: DIR CONFIG PAIR
            parser().parse_args(words)


def test_the_kubernetes_job_has_a_token_no_telemetry_and_a_place_for_the_run():
    job = manifest("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        names = {item["name"]: item for item in container["env"]}
        assert names["RAY_AUTH_MODE"]["value"] == "token"
        assert names["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "stg-tune-ray"
        assert names["RAY_USAGE_STATS_ENABLED"]["value"] == "0"
        assert {item["name"] for item in container["volumeMounts"]} <= {item["name"] for item in pod["volumes"]}
        mounts = [item["mountPath"] for item in container["volumeMounts"]]
        assert any(f" {place}/" in job["spec"]["entrypoint"] for place in mounts)
    assert groups[0]["rayStartParams"]["num-cpus"] == "0"
    assert [group["rayStartParams"]["object-store-memory"] for group in groups] == [str(OBJECT_STORE)] * 2
    assert groups[1]["minReplicas"] <= groups[1]["replicas"] <= groups[1]["maxReplicas"]
    assert groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_kubernetes_cluster_grows_for_workers_that_wait_and_a_worker_is_a_pod():
    job = manifest("rayjob.yaml")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    room = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    words = commands(job["spec"]["entrypoint"])
    assert [line[0] for line in words] == ["resume", "search"]
    found = [parser().parse_args(line) for line in words]
    for options in found:
        assert options.workers == group["maxReplicas"]
        assert options.cpus_per_worker == float(room["cpu"])
        assert options.gpus_per_worker == float(room["nvidia.com/gpu"])
    assert found[0].takeover, "the driver that a new pod replaces had another host"


def test_the_launcher_file_is_what_the_launcher_takes():
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(manifest("cluster.yaml"))
    validate_config(prepared)
    (kind,) = prepared["available_node_types"].values()
    assert (kind["min_workers"], kind["max_workers"]) == (2, 2)
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**prepared, "start_ray_commands": []})


def starts(name):
    """Every `ray start ...` of a file of the documentation."""
    text = (DOCS / name).read_text(encoding="utf-8").replace("\n    --", " --")
    return re.findall(r"ray start --[^#\n`]*", text)


@pytest.mark.parametrize("name", ["cluster.md", "cluster/cluster.yaml"])
def test_no_machine_gives_a_third_of_its_memory_to_the_object_store(name):
    head, worker = starts(name)
    assert "--head" in head
    assert "--address=" in worker
    assert all(f"--object-store-memory={OBJECT_STORE}" in line for line in (head, worker))


def test_the_launcher_file_starts_head_and_workers_with_the_same_token():
    cluster = manifest("cluster.yaml")
    starts = [cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]]
    assert all(
        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/ray-token RAY_USAGE_STATS_ENABLED=0" in line for line in starts
    )
    assert "~/ray-token" in cluster["file_mounts"]
    assert "--head" in starts[0]
    assert "--address=$RAY_HEAD_IP:6379" in starts[1]
    assert cluster["min_workers"] == len(cluster["provider"]["worker_ips"])

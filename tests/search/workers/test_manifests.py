"""The cluster files of the documentation say what the program understands."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from stg_tune.cli.main import parser

DOCS = Path(__file__).parents[3] / "docs"


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
    job = yaml.safe_load((DOCS / "cluster" / "rayjob.yaml").read_text(encoding="utf-8"))
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
    assert groups[1]["minReplicas"] <= groups[1]["replicas"] <= groups[1]["maxReplicas"]
    assert groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_launcher_file_starts_head_and_workers_with_the_same_token():
    cluster = yaml.safe_load((DOCS / "cluster" / "cluster.yaml").read_text(encoding="utf-8"))
    starts = [cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]]
    assert all(
        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/ray-token RAY_USAGE_STATS_ENABLED=0" in line for line in starts
    )
    assert "~/ray-token" in cluster["file_mounts"]
    assert "--head" in starts[0]
    assert "--address=$RAY_HEAD_IP:6379" in starts[1]
    assert cluster["min_workers"] == len(cluster["provider"]["worker_ips"])

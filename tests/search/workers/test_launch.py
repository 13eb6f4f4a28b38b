"""The commands of the cluster files, run: a cluster on this machine that wants a token, and a search on it."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from stg_tune.search.workers.cluster import OBJECT_STORE

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[3] / "docs" / "cluster"
TOKEN = "7" * 64


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


LOOPBACK = r"""
import fcntl, socket, struct, sys, time
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def network():
    """A network of its own with nothing but the loopback: Ray listens on every address of a network that it may use."""
    kinds = [["--net"], ["--net", "--user", "--map-root-user"]]
    own = next(
        (kind for kind in kinds if subprocess.run(["unshare", *kind, "true"], capture_output=True).returncode == 0),
        None,
    )
    if own is None:
        pytest.skip("this system allows no network namespace, and Ray would be reachable from other machines")
    with subprocess.Popen(
        ["unshare", *own, sys.executable, "-c", LOOPBACK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout.readline() == "up\n"
        user = ["--user", "--preserve-credentials"] if "--user" in own else []
        yield ["nsenter", "--target", str(keeper.pid), "--net", *user]
        keeper.stdin.close()


@dataclass
class Machine:
    """A home folder as the launcher leaves it, and the port of a cluster that is started from there."""

    home: Path
    port: int
    inside: list[str]
    """What a command begins with to be in the network of the cluster."""

    def environment(self, **more):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        place = self.home / "stg-tune-env" / "bin"
        own = {"HOME": str(self.home), "PATH": f"{place}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        return {**kept, **own, **more}

    def begin(self, command, log, **more):
        """A shell with a process group of its own, which everything that it starts stays in."""
        with (self.home / log).open("w", encoding="utf-8") as told:
            return subprocess.Popen(
                [*self.inside, "sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                cwd=self.home,
                env=self.environment(**more),
                start_new_session=True,
            )

    def told(self, log):
        return (self.home / log).read_text(encoding="utf-8")


def end(group):
    """End a process group that was started here, which takes Ray some seconds."""
    for name, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        give_up = time.monotonic() + patience
        with suppress(ProcessLookupError):
            os.killpg(group, name)
            while time.monotonic() < give_up:
                os.killpg(group, 0)
                time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, network):
    """The two lines of the launcher's file, without the launcher, which would go to other machines by ssh."""
    home = tmp_path_factory.mktemp("home")
    (home / "stg-tune-env").symlink_to(sys.prefix)
    (home / "ray-token").write_text(TOKEN)
    folder = tempfile.mkdtemp(prefix="ray-")  # the paths of sockets must be short
    made, groups = Machine(home, free_port(), network), []
    launcher = yaml.safe_load((DOCS / "cluster.yaml").read_text(encoding="utf-8"))
    lines = [launcher["head_start_ray_commands"][-1], launcher["worker_start_ray_commands"][-1]]
    try:
        for line, more in zip(lines, (f"--temp-dir={folder} --num-cpus=1", "--num-cpus=1"), strict=True):
            line = re.sub(r" --autoscaling-config=\S+", "", line.replace("6379", str(made.port)))
            shell = made.begin(f"{line} {more}", "ray.log", RAY_HEAD_IP="127.0.0.1")
            groups.append(shell.pid)
            assert shell.wait(90) == 0, made.told("ray.log")
        yield made
    finally:
        for group in reversed(groups):
            end(group)
        shutil.rmtree(folder, ignore_errors=True)


DRIVER = r"""
import json, sys, time
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import Task
from stg_tune.search.workers.cluster import alive_nodes
from stg_tune.search.workers.executor import RayExecutor, RaySettings

class Recipe:
    def __call__(self, threads):
        import ray
        node = ray.get_runtime_context().get_node_id()
        def evaluate(spec, pair):
            time.sleep(0.2)
            return Evaluation(config=spec.hash(), pair=pair, unscored={"node": node})
        return evaluate
    def identity(self):
        return {}

spec = GuidanceSpec(cfg_scale=2.0)
tasks = [Task(spec=spec, pair=Pair(prompt="p", seed=seed), role="search") for seed in range(200)]
nodes = set()
with RayExecutor(Recipe(), RaySettings(address=sys.argv[1])) as executor:
    for item in executor.run(tasks):
        nodes.add(item.evaluation.unscored["node"])
        if len(nodes) == 2:
            break
    stores = [node["object_store_memory"] for node in alive_nodes().values()]
print(json.dumps({"nodes": len(nodes), "stores": stores}))
"""


def drive(machine, **environment):
    return subprocess.run(
        [*machine.inside, sys.executable, "-c", DRIVER, f"127.0.0.1:{machine.port}"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=machine.home,
        env=machine.environment(**environment),
    )


def test_workers_on_a_cluster_with_a_token_and_a_small_object_store(machine):
    run = drive(machine, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(machine.home / "ray-token"))
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["nodes"] == 2
    assert found["stores"] == [OBJECT_STORE] * 2


def test_without_its_token_the_cluster_cannot_be_used_and_it_is_said_how(machine):
    run = drive(machine, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="8" * 64)
    assert run.returncode == 1
    assert "StgTuneError: no Ray cluster can be used at" in run.stderr
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in run.stderr


def counted(folder):
    try:
        with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as base:
            return base.execute("select count(*) from evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def stopped_after(machine, command, folder, rows, log, **environment):
    """Run a command until so many rows are there, then interrupt the driver; the command's exit code."""
    shell = machine.begin(command, log, **environment)
    give_up = time.monotonic() + 300
    try:
        while counted(folder) < rows:
            assert shell.poll() is None, machine.told(log)
            assert time.monotonic() < give_up, machine.told(log)
            time.sleep(0.2)
        os.kill(json.loads((folder / "driver.lock").read_text())["pid"], signal.SIGINT)
        return shell.wait(60)
    finally:
        end(shell.pid)


def test_the_entrypoint_of_the_kubernetes_job_searches_and_when_it_is_there_again_resumes(machine):
    command = yaml.safe_load((DOCS / "rayjob.yaml").read_text(encoding="utf-8"))["spec"]["entrypoint"]
    runs = machine.home / "runs"
    runs.mkdir()
    smaller = {
        "/runs/": f"{runs}/",
        "--model open-sora ": "--model open-sora-tiny ",
        "--workers 8": "--workers 1",
        "--gpus-per-worker 1": "--gpus-per-worker 0",
        "--cpus-per-worker 8": "--cpus-per-worker 1",
    }
    for large, small in smaller.items():
        assert large in command
        command = command.replace(large, small)
    pod = {"RAY_ADDRESS": f"127.0.0.1:{machine.port}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    folder = runs / "mine"
    assert stopped_after(machine, command, folder, 2, "search.log", **pod) == 130
    (folder / "driver.lock").write_text('{"pid": 1, "host": "a-pod-that-is-gone"}')
    before = counted(folder)
    assert stopped_after(machine, command, folder, before + 2, "resume.log", **pod) == 130

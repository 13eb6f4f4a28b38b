"""A driver in a process of its own, so that it can be killed: `python driver_process.py CONFTEST`, then JSON lines.

Each line is a request `{"folder": ..., "executor": "inline" | "ray", "seconds": ..., "address": ...}`. The driver is
forked (all is imported already), its pid is written at once, its exit code when it has ended.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path

import stg_tune.search.driver
import stg_tune.search.session
from stg_tune.search.workers.executor import RayExecutor, RaySettings


def load_scene(path):
    spec = importlib.util.spec_from_file_location("scene", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scene"] = module
    spec.loader.exec_module(module)
    return module


SCENE = load_scene(sys.argv[1])
Landscape = SCENE.Landscape


class Recipe:
    """Evaluates the synthetic landscape and leaves a line for each evaluation that was begun."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds

    def __call__(self, threads):
        landscape = Landscape(name="d1", noise=0.4)
        log = os.open(Path(self.folder) / "begun.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def evaluate(spec, pair):
            os.write(log, f"{spec.hash()} {pair.key}\n".encode())
            time.sleep(self.seconds)
            return landscape(spec, pair)

        return evaluate

    def identity(self):
        return {}


def essence(result):
    """What must not depend on interruptions or on who evaluated."""
    return {
        "spent": result.spent,
        "trials": [(t.measurement.config, t.measurement.mean, t.pruned, t.repeated) for t in result.trials],
        "winner": result.verdict.winner.hash(),
        "gain": dataclasses.asdict(result.verdict.gain),
    }


def search(request):
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    plan = SCENE.plan_for(SCENE.Landscape(name="d1", noise=0.4), budget="150", prompts=200)
    recipe = Recipe(str(folder), request["seconds"])
    if request["executor"] == "ray":
        settings = RaySettings(workers=2, cpus=1, gpus=0, address=request["address"])
        with RayExecutor(recipe, settings) as executor:
            result = stg_tune.search.driver.run_search(plan, executor=executor, directory=folder)
    else:
        result = stg_tune.search.driver.run_search(plan, recipe(1), directory=folder)
    (folder / "essence.json").write_text(json.dumps(essence(result)))


def fork(request):
    if request["address"]:
        import ray  # noqa: F401 - once here, not once in every driver
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if request["executor"] == "ray":
            from ray import cloudpickle

            cloudpickle.register_pickle_by_value(SCENE)
        search(request)
        status = 0
    except BaseException:  # noqa: BLE001 - this is the end of a process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


for line in sys.stdin:
    pid = fork(json.loads(line))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

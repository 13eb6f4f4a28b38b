"""An evaluation that takes the driver's process with it: tried again a few times, then a failure with a name."""

import faulthandler
import json
import os
import signal

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.driver import run_search
from stg_tune.search.executor import EvaluationError, Task, attempt
from stg_tune.search.inflight import DEATHS, InFlight, watched
from stg_tune.search.stored import rows_of

SPEC = GuidanceSpec(cfg_scale=2.0)
PAIRS = [Pair(prompt="p", seed=seed) for seed in range(3)]


def fine(spec, pair):
    return Evaluation(config=spec.hash(), pair=pair, scores={"a": 1.0})


def in_a_child(work):
    """The exit status of a process of its own."""
    child = os.fork()
    if not child:
        faulthandler.disable()  # what dies here is meant to
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - this is the end of a process
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_under(folder, key, number=signal.SIGSEGV):
    def work():
        with InFlight(folder).during(key):
            os.kill(os.getpid(), number)

    assert in_a_child(work) == -number


def test_deaths_are_counted_and_forgotten_when_it_works_after_all(tmp_path):
    assert InFlight(tmp_path).deaths("a") == 0
    die_under(tmp_path, "a")
    die_under(tmp_path, "a", signal.SIGKILL)
    die_under(tmp_path, "b")
    assert [InFlight(tmp_path).deaths(key) for key in "abc"] == [2, 1, 0]
    with InFlight(tmp_path).during("a"):
        pass
    assert [InFlight(tmp_path).deaths(key) for key in "ab"] == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, EvaluationError("nan", "x")])
def test_what_python_knows_of_is_no_death(tmp_path, error):
    with pytest.raises(BaseException), InFlight(tmp_path).during("a"):  # noqa: B017, PT011 - whatever it is
        raise error
    assert InFlight(tmp_path).deaths("a") == 0


def test_a_machine_that_went_down_blames_nobody(tmp_path):
    die_under(tmp_path, "a")
    file = tmp_path / "inflight.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another start of the machine"}))
    assert InFlight(tmp_path).deaths("a") == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"now": 1}', '{"boot": 1, "now": "a", "deaths": {"a": "x"}}'])
def test_a_torn_file_blames_nobody(tmp_path, text):
    (tmp_path / "inflight.json").write_text(text)
    assert InFlight(tmp_path).deaths("a") == 0


def test_a_folder_that_cannot_be_written_ends_no_evaluation(tmp_path):
    assert watched(fine, InFlight(tmp_path / "gone"))(SPEC, PAIRS[0]).scores == {"a": 1.0}


def test_a_batch_that_kills_is_taken_apart_and_only_the_pair_that_kills_is_marked(tmp_path):
    class Many:
        def __call__(self, spec, pair):
            if pair.seed == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            return fine(spec, pair)

        def many(self, spec, pairs):
            return [self(spec, pair) for pair in pairs]

    task = Task(spec=SPEC, pair=PAIRS[0], more=tuple(PAIRS[1:]), role="search")
    for _ in range(1 + DEATHS):
        assert in_a_child(lambda: attempt(watched(Many(), InFlight(tmp_path)), task)) == -signal.SIGSEGV
    done = attempt(watched(Many(), InFlight(tmp_path)), task)
    assert [row.error[:6] for row in done] == ["", "crash:", ""]
    assert f"died {DEATHS} times" in done[1].error


def test_other_fidelities_are_other_evaluations(tmp_path):
    class Cheaper:
        def __call__(self, spec, pair):
            return fine(spec, pair)

        def at(self, fidelity):
            return fine

    evaluate = watched(Cheaper(), InFlight(tmp_path))
    die_under(tmp_path, f"{SPEC.hash()}/{PAIRS[0].key}/steps/2")
    assert InFlight(tmp_path).deaths(f"{SPEC.hash()}/{PAIRS[0].key}/full") == 0
    assert evaluate.at("steps/2")(SPEC, PAIRS[0]).error == ""
    assert not hasattr(evaluate, "many")


def test_a_run_with_an_evaluation_that_segfaults_in_the_driver_completes(landscape, make_plan, tmp_path):
    scene = landscape(name="d1", noise=0.4)
    plan = make_plan(scene, budget="150", prompts=200)
    calm = run_search(plan, scene, directory=tmp_path / "calm")
    killer = calm.screen.measured[1]

    def evaluate(spec, pair):
        if (spec.hash(), pair.key) == (killer.config, killer.rows[0].pair.key):
            os.kill(os.getpid(), signal.SIGSEGV)
        return scene(spec, pair)

    folder, status = tmp_path / "run", []
    while status[-1:] != [0] and len(status) < 10:
        status.append(in_a_child(lambda: run_search(plan, evaluate, directory=folder)))
    assert status == [-signal.SIGSEGV] * DEATHS + [0]
    (failed,) = [row for row in rows_of(folder) if row.evaluation.error]
    assert failed.evaluation.error == f"crash: the process died {DEATHS} times while evaluating it"
    assert failed.evaluation.config == killer.config

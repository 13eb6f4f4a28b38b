"""The storage on a real PostgreSQL server, which these tests start as an ordinary user and stop in the middle."""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from stg_tune.errors import StgTuneError
from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.stored import rows_of

pytest.importorskip(
    "pg8000", reason="the PostgreSQL driver pg8000 is not installed: pip install 'stg-tune[postgresql]'"
)

pytestmark = pytest.mark.slow

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
NOBODY = "nobody"
ROLE = "tuner"


def programs():
    """Folder of `initdb` and `postgres`, or a skip that says what is missing."""
    for place in [*PLACES, *(Path(found).parent for found in [shutil.which("initdb")] if found)]:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.skip("PostgreSQL is not installed: the Debian package is called postgresql")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One PostgreSQL on 127.0.0.1; it refuses to run as root, and then runs as `nobody`."""

    def __init__(self, folder):
        self.bin, self.folder, self.port = programs(), folder, free_port()
        self.user = NOBODY if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", str(folder / "data"), "-U", ROLE, "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        self.process = None

    def url(self, database="postgres"):
        return f"postgresql+pg8000://{ROLE}@127.0.0.1:{self.port}/{database}"

    def start(self):
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings],
            user=self.user,
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            with suppress(sa.exc.SQLAlchemyError):
                return self.execute("select 1")
            time.sleep(0.1)
        return pytest.fail("the server does not start")

    def stop(self):
        """At once: every connection is cut."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=60)

    def execute(self, statement):
        engine = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(statement))
        finally:
            engine.dispose()

    def _run(self, program, *arguments):
        done = subprocess.run(
            [self.bin / program, *arguments], user=self.user, cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server():
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    made = Server(folder)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(server):
    name = f"d{time.monotonic_ns()}"
    server.execute(f"create database {name}")
    return server.url(name)


@pytest.fixture(scope="module")
def scene(landscape):
    return landscape(name="d1", noise=0.4)


@pytest.fixture(scope="module")
def plan(scene, make_plan):
    return make_plan(scene, budget="150", prompts=200)


@pytest.fixture(scope="module")
def on_sqlite(scene, plan, tmp_path_factory):
    return run_search(plan, scene, directory=tmp_path_factory.mktemp("sqlite"))


def test_a_run_gives_what_it_gives_on_sqlite(scene, plan, on_sqlite, database, tmp_path):
    result = run_search(plan, scene, directory=tmp_path, storage=database)
    assert result.verdict == on_sqlite.verdict
    assert snapshot(tmp_path).verdict == on_sqlite.verdict
    assert len(rows_of(tmp_path)) == result.spent
    study = optuna.load_study(study_name=plan.model, storage=database)
    assert len(study.get_trials()) == sum(bool(trial.params) for trial in result.trials)
    assert not (tmp_path / "study.db").exists()


def test_a_server_that_goes_away_and_returns_costs_no_pair(scene, plan, on_sqlite, server, database, tmp_path):
    counted = []
    returning = []

    def evaluate(spec, pair):
        counted.append((spec.hash(), pair.key))
        if len(counted) in (40, 90):  # in the screen, and in the search
            server.stop()
            returning.append(threading.Timer(1.0, server.start))
            returning[-1].start()
        return scene(spec, pair)

    with pytest.warns(UserWarning, match="does not answer"):
        result = run_search(plan, evaluate, directory=tmp_path, storage=database)
    for timer in returning:
        timer.join()
    assert len(returning) == 2
    assert result.verdict == on_sqlite.verdict
    assert len(counted) == len(set(counted)) == len(rows_of(tmp_path))
    trials = optuna.load_study(study_name=plan.model, storage=database).get_trials()
    assert len({trial.user_attrs["config"] for trial in trials if not trial.user_attrs["repeated"]}) == len(
        [trial for trial in trials if not trial.user_attrs["repeated"]]
    )


def test_another_run_in_the_same_database_is_refused(scene, plan, make_plan, database, tmp_path):
    run_search(plan, scene, directory=tmp_path / "a", storage=database)
    other = make_plan(scene, budget="150", prompts=200, seed=5)
    with pytest.raises(StgTuneError, match="must not be mixed"):
        run_search(other, scene, directory=tmp_path / "b", storage=database)
    assert not (tmp_path / "b" / "run.json").exists()


def test_a_server_that_is_not_there_is_said_at_once_and_without_the_password(plan, scene, tmp_path):
    url = f"postgresql+pg8000://{getpass.getuser()}:hunter2@127.0.0.1:{free_port()}/none"
    begun = time.monotonic()
    with pytest.raises(StgTuneError, match="cannot open the storage") as error:
        run_search(plan, scene, directory=tmp_path, storage=url)
    assert "hunter2" not in str(error.value)
    assert time.monotonic() - begun < 30

"""Joining Ray leaves the program's answer to SIGTERM alone; one that comes meanwhile waits until Ray has started."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from stg_tune.search.workers.cluster import RemoteCluster

Join = Callable[[Callable[[], object]], None]


class Stopped(BaseException):
    """What the program answers with."""


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    before, real = signal.getsignal(signal.SIGTERM), signal.signal
    yield
    assert signal.signal is real
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Join:
    """Join a cluster; what Ray does while it starts is the test's."""

    def joined(start: Callable[[], object]) -> None:
        # not the real one: what it reads when it is imported would hold for every other test of this process
        ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **more: start())
        monkeypatch.setitem(sys.modules, "ray", ray)
        RemoteCluster("127.0.0.1:6379")

    return joined


def stop(number: int, frame: object) -> None:
    raise Stopped


def claim() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(number))


def test_a_handler_of_the_program_stays(join: Join) -> None:
    signal.signal(signal.SIGTERM, stop)
    join(claim)
    assert signal.getsignal(signal.SIGTERM) is stop


def test_where_the_program_has_none_rays_is_left(join: Join) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    join(claim)
    assert callable(signal.getsignal(signal.SIGTERM))


def test_a_sigterm_while_ray_starts_is_answered_by_the_program_when_it_has(join: Join) -> None:
    finished = []

    def start() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        claim()
        os.kill(os.getpid(), signal.SIGTERM)
        finished.append("started")

    signal.signal(signal.SIGTERM, stop)
    with pytest.raises(Stopped):
        join(start)
    assert finished == ["started"]


def test_other_signals_are_rays_own_affair(join: Join) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, stop)
    join(lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))
    found = signal.signal(signal.SIGUSR1, before)
    assert found is signal.SIG_IGN

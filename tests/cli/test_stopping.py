"""SIGTERM is taken as Ctrl-C is, with an exit code of its own."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest

from stg_tune.cli.stopping import code_of, held, terminable
from stg_tune.errors import TerminatedError


def test_sigterm_stops_as_ctrl_c_does_and_the_handler_goes_with_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as stop, terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert code_of(stop.value) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_one_does_not_disturb_the_clean_stop() -> None:
    tidied = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append("everything")

    with pytest.raises(TerminatedError), terminable():
        work()
    assert tidied == ["everything"]


def test_what_ray_makes_of_sigterm_is_the_same_stop() -> None:
    with pytest.raises(TerminatedError), terminable():
        raise SystemExit(signal.SIGTERM)
    with pytest.raises(SystemExit), terminable():
        raise SystemExit(3)


def test_a_stop_that_comes_out_of_native_code_as_ctrl_c_is_still_one_by_sigterm() -> None:
    def work() -> None:
        with suppress(TerminatedError):
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt  # as Ray's wait does for whatever a handler raises

    with pytest.raises(TerminatedError), terminable():
        work()
    with pytest.raises(KeyboardInterrupt) as stop, terminable():
        raise KeyboardInterrupt
    assert code_of(stop.value) == 130


def test_ctrl_c_keeps_its_own_code() -> None:
    assert code_of(KeyboardInterrupt()) == 130


def test_other_threads_get_no_signals_and_are_left_alone() -> None:
    found: list[object] = []

    def work() -> None:
        with terminable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_handler_that_a_library_puts_there_is_replaced_with_the_next_word_of_progress() -> None:
    before, told = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts
        held(told.append)("a word")
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TerminatedError), terminable():
        work()
    held(told.append)("outside, nothing is held")
    assert signal.getsignal(signal.SIGTERM) is before
    assert told == ["a word", "outside, nothing is held"]


def test_what_is_stopping_is_not_stopped_again_by_a_late_word_of_progress() -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            held(lambda: None)()
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(TerminatedError), terminable():
            work()


@pytest.mark.parametrize("error", [TerminatedError(), SystemExit(signal.SIGTERM)])
def test_a_stop_that_native_code_has_swallowed_is_made_up_for(error: BaseException) -> None:
    class Native:
        def __del__(self) -> None:
            raise error

    told, hook = [], sys.unraisablehook

    def work() -> None:
        native = Native()
        del native
        told.append("still here")
        held(told.append)("a word")

    with pytest.raises(TerminatedError), terminable():
        work()
    assert told == ["still here"]
    assert sys.unraisablehook is hook
    held(told.append)("the next search")


def test_a_stop_that_native_code_has_swallowed_comes_again_where_no_word_of_progress_follows() -> None:
    class Native:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    told: list[str] = []

    def work() -> None:
        native = Native()
        del native
        told.append("still here")
        time.sleep(20)
        told.append("not disturbed")

    with pytest.raises(TerminatedError), terminable():
        work()
    assert told == ["still here"]

"""What this process is evaluating, kept on disk: an evaluation that takes the process with it is known afterwards.

Workers of a pool die alone. An evaluation inside the driver's own process takes the driver along when it crashes in
native code or uses up the memory, and would do so again at every resume.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.search.executor import EvaluationError, evaluator_at
from stg_tune.search.fidelity import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.records import Evaluation, GuidanceSpec, Pair
    from stg_tune.search.executor import Evaluate

DEATHS = 3
"""Deaths of the process under one evaluation, after which it is recorded as ``crash`` and not tried again."""
MOST_BYTES = 100_000
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class InFlight:
    """``DIR/inflight.json``: what is being evaluated, and under what the process has died how often.

    An evaluation that ends in any way that Python knows of, Ctrl-C and SIGTERM among them, is no death; nor is it one
    when the whole machine went down. The file is not synced to the disk: it has to outlive the process only.

    Args:
        directory: The folder of the run, whose lock this process holds as soon as anything is evaluated.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "inflight.json"
        self._known: dict[str, int] | None = None

    def deaths(self, key: str) -> int:
        """How often a process has died under this evaluation."""
        return self._deaths().get(key, 0)

    @contextmanager
    def during(self, key: str) -> Iterator[None]:
        """Note that ``key`` is being evaluated, for as long as it is."""
        self._deaths()
        self._write(key)
        try:
            yield
        finally:
            self._deaths().pop(key, None)
            self._write(None)

    def _deaths(self) -> dict[str, int]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, int]:
        try:
            data = json.loads(self._path.read_bytes()[:MOST_BYTES])
            deaths = {str(key): int(count) for key, count in data["deaths"].items()}
            under, boot = data["now"], data["boot"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or torn: nobody is blamed
            return {}
        if under is not None and boot == _boot():
            deaths[str(under)] = deaths.get(str(under), 0) + 1
        return deaths

    def _write(self, key: str | None) -> None:
        text = json.dumps({"boot": _boot(), "now": key, "deaths": self._known})
        with suppress(OSError):  # a disk that is full must not end an evaluation; the storage will say so
            self._path.write_text(f"{text}\n", encoding="utf-8")


class Watched:
    """An evaluator that notes what it does, and refuses what has killed the process ``DEATHS`` times.

    Args:
        evaluate: Generates and scores one pair.
        in_flight: Where it is noted.
        fidelity: Of the evaluator.
    """

    def __init__(self, evaluate: Evaluate, in_flight: InFlight, fidelity: str = FULL) -> None:
        self._evaluate, self._in_flight, self._fidelity = evaluate, in_flight, fidelity

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """Evaluate one pair.

        Raises:
            EvaluationError: It has killed the process too often.
        """
        key = self._key(spec, [pair])
        deaths = self._in_flight.deaths(key)
        if deaths >= DEATHS:
            raise EvaluationError("crash", f"the process died {deaths} times while evaluating it")
        with self._in_flight.during(key):
            return self._evaluate(spec, pair)

    def at(self, fidelity: str) -> Watched:
        """The same at another fidelity."""
        return watched(evaluator_at(self._evaluate, fidelity), self._in_flight, fidelity)

    def _key(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> str:
        return f"{spec.hash()}/{'+'.join(pair.key for pair in pairs)}/{self._fidelity}"


class WatchedBatches(Watched):
    """The same for an evaluator that takes batches; one that has killed the process is taken apart."""

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Evaluation]:
        """Evaluate several pairs at once.

        Raises:
            EvaluationError: The batch has killed the process: its pairs have to be evaluated one by one.
        """
        key = self._key(spec, pairs)
        if self._in_flight.deaths(key):
            raise EvaluationError("crash", "the process died while evaluating the batch")
        many: object = getattr(self._evaluate, "many", None)
        assert callable(many)
        with self._in_flight.during(key):
            return list(many(spec, pairs))


def watched(evaluate: Evaluate, in_flight: InFlight, fidelity: str = FULL) -> Watched:
    """The evaluator, with all that it can do, under watch."""
    kind = WatchedBatches if hasattr(evaluate, "many") else Watched
    return kind(evaluate, in_flight, fidelity)


def _boot() -> str:
    """What changes when the machine starts anew."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return os.uname().nodename

"""A database that goes away and comes back costs time, not results."""

from __future__ import annotations

import re
import time
import warnings
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 300.0
"""Seconds that a database may be away before the run stops; what is in flight is then lost, nothing else."""
WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries; the last is repeated."""

_Answer = TypeVar("_Answer")

_SQLITE = re.compile(r"database is locked|unable to open database|disk I/O error")
_AWAY = re.compile(r"\b(57P0[1-5]|08[0-9A-Z]{3}|53300)\b|connection|network|server closed|starting up|shutting down")
_HOPELESS = re.compile(r"database or disk is full|no space left|\b53100\b|readonly database|password|authentication")


def is_away(error: BaseException) -> bool:
    """Whether a database error is one that passes: no connection, a restart, a lock."""
    cause = _root(error)
    if not isinstance(cause, DBAPIError):
        return False
    text = str(cause.orig)
    if _HOPELESS.search(text):
        return False
    if "sqlite" in type(cause.orig).__module__:
        return bool(_SQLITE.search(text))
    return (
        cause.connection_invalidated
        or isinstance(cause, InterfaceError)
        or (isinstance(cause, OperationalError | DBAPIError) and bool(_AWAY.search(text)))
    )


def patiently(
    action: Callable[[], _Answer],
    where: str,
    *,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _Answer:
    """Do ``action``, again and again while the database is away; it must not mind that it has been done already.

    Args:
        action: Talks to the database.
        where: The storage, for the message.
        patience: Seconds.
        sleep: Waits.
        clock: Seconds of a clock that never goes back.

    Raises:
        Exception: What ``action`` raised, when that is no passing trouble or ``patience`` is used up.
    """
    begun, tries = clock(), 0
    while True:
        try:
            return action()
        except Exception as error:
            if not is_away(error) or clock() - begun > patience:
                raise
            if not tries:
                warnings.warn(
                    f"the storage {where} does not answer ({reason(error)}); trying again for {patience:.0f} s",
                    UserWarning,
                    stacklevel=2,
                )
        sleep(WAITS[min(tries, len(WAITS) - 1)])
        tries += 1


def reason(error: BaseException) -> str:
    """The first line of what the database itself said."""
    text = str(getattr(_root(error), "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _root(error: BaseException) -> BaseException:
    """The error of SQLAlchemy under that of a library that is built on it, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SQLAlchemyError):
        cause = cause.__cause__
    return cause or error

"""The errors a user sees. The command line prints the message bare and exits with status 1."""


class StgTuneError(Exception):
    """Something the user can fix.

    The message says what was wrong (with the value), where, what is allowed, and what to type.
    """


class NotReachableError(StgTuneError):
    """Files that a model or scorer needs are neither on this machine nor reachable."""


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; what it does about that is what it does about Ctrl-C."""

"""The table ``evaluations``: one row for each finished (configuration, pair), beside the Optuna study in one URL."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.patience import patiently, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_Answer = TypeVar("_Answer")

SCHEMA_VERSION = 1
"""Version of the tables below; another version is refused."""
SQLITE_TIMEOUT = 60
"""Seconds that a writer waits for the lock: a dashboard may be reading the same file."""

Role = Literal["search", "holdout"]
"""``search`` pairs may guide decisions of the search, ``holdout`` pairs may not."""

Key = tuple[str, str, str]
"""(hash of the configuration, key of the pair, fidelity)."""

_METADATA = sa.MetaData()
_SCHEMA = sa.Table("stg_tune_schema", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_RUNS = sa.Table(
    "stg_tune_runs",
    _METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
)
_EVALUATIONS = sa.Table(
    "evaluations",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(200), nullable=False),
    sa.Column("config", sa.String(16), nullable=False),
    sa.Column("pair", sa.String(12), nullable=False),
    sa.Column("fidelity", sa.String(40), nullable=False),
    sa.Column("config_json", sa.Text, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("scores", sa.Text, nullable=False),
    sa.Column("unscored", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("forwards", sa.Float, nullable=False),
    sa.Column("effects", sa.Text, nullable=False),
    sa.Column("worker", sa.String(200), nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("finished", sa.String(40), nullable=False),
    sa.UniqueConstraint("study", "config", "pair", "fidelity", name="one_row_a_config_and_pair"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    spec: GuidanceSpec
    """The configuration."""
    evaluation: Evaluation
    """What it gave."""
    role: Role
    """Which half of the pairs it belongs to."""
    fidelity: str
    """``full``, or the name of a cheaper generation setting."""
    worker: str
    """``host:pid`` of the process that made it."""
    versions: Mapping[str, str]
    """Library versions of that process."""


class EvaluationTable:
    """Rows of one study in a database; every ``add`` is committed before it returns.

    Args:
        url: Any SQLAlchemy URL; ``sqlite:///DIR/study.db`` by default elsewhere.
        study: Name of the study; several may live in one database.

    Raises:
        StgTuneError: The database cannot be opened or was written by another schema version.
    """

    def __init__(self, url: str, study: str) -> None:
        self.url = url
        self.study = study
        self._engine = _open(url)
        self._check_version()

    def claim(self, fingerprint: str) -> None:
        """Bind the study to what defines its numbers; another fingerprint for the same study is an ``StgTuneError``."""
        known = self._patiently(lambda: self._bound_to(fingerprint))
        if known not in (None, fingerprint):
            raise StgTuneError(
                f"the storage {_shown(self.url)} holds a study {self.study!r} with another space, pairs, scorers or "
                "model: their numbers must not be mixed; choose another --out folder or --storage"
            )

    def add(self, *rows: Row) -> None:
        """Commit rows, all or none; a second row for the same configuration, pair and fidelity is an ``StgTuneError``.

        While the database is away it is tried again; the rows may then have been committed by the try that was cut off.
        """
        values, tries = [self._values(row) for row in rows], itertools.count(1)

        def insert() -> int:
            number = next(tries)
            self._insert(values)
            return number

        try:
            self._patiently(insert)
        except IntegrityError:
            if next(tries) > 2 and all(self._holds(row) for row in values):
                return
            names = ", ".join(f"configuration {row['config']} on pair {row['pair']}" for row in values)
            raise StgTuneError(
                f"{names} is in the storage already: another driver is writing the same study; stop one of them"
            ) from None

    def rows(self) -> list[Row]:
        """All rows of the study in the order they were finished."""
        query = sa.select(_EVALUATIONS).where(_EVALUATIONS.c.study == self.study).order_by(_EVALUATIONS.c.id)
        return self._patiently(lambda: self._fetch(query))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _patiently(self, action: Callable[[], _Answer]) -> _Answer:
        try:
            return patiently(action, _shown(self.url))
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise StgTuneError(
                f"cannot use the storage {_shown(self.url)}: {reason(error)}. Every finished pair is kept; when "
                "that is mended, `stg-tune resume` goes on"
            ) from None

    def _bound_to(self, fingerprint: str) -> str | None:
        with self._engine.begin() as connection:
            query = sa.select(_RUNS.c.fingerprint).where(_RUNS.c.study == self.study)
            known: str | None = connection.execute(query).scalar()
            if known is None:
                row = {"study": self.study, "fingerprint": fingerprint, "created": _now()}
                connection.execute(_RUNS.insert().values(row))
        return known

    def _insert(self, values: Sequence[Mapping[str, Any]]) -> None:
        with self._engine.begin() as connection:
            connection.execute(_EVALUATIONS.insert().values(values))

    def _holds(self, values: Mapping[str, Any]) -> bool:
        """Whether this very row is there: same worker, same numbers, same moment."""
        columns = (name for name in values)
        query = sa.select(sa.func.count()).where(*(_EVALUATIONS.c[name] == values[name] for name in columns))
        with self._engine.connect() as connection:
            return bool(connection.execute(query).scalar())

    def _fetch(self, query: sa.Select[Any]) -> list[Row]:
        with self._engine.connect() as connection:
            return [_row(record) for record in connection.execute(query).mappings()]

    def _values(self, row: Row) -> dict[str, Any]:
        done = row.evaluation
        return {
            "study": self.study,
            "config": done.config,
            "pair": done.pair.key,
            "fidelity": row.fidelity,
            "config_json": json.dumps(row.spec.to_dict()),
            "prompt": done.pair.prompt,
            "seed": done.pair.seed,
            "role": row.role,
            "scores": json.dumps(dict(done.scores)),
            "unscored": json.dumps(dict(done.unscored)),
            "seconds": done.seconds,
            "forwards": done.forwards,
            "effects": json.dumps(dict(done.effects)),
            "worker": row.worker,
            "versions": json.dumps(dict(row.versions), sort_keys=True),
            "error": done.error.replace("\0", ""),  # PostgreSQL keeps no such character
            "finished": _now(),
        }

    def _check_version(self) -> None:
        try:
            with self._engine.begin() as connection:
                version = _version(connection)
                if version in (None, SCHEMA_VERSION):
                    _METADATA.create_all(connection)
                if version is None:
                    connection.execute(_SCHEMA.insert().values(version=SCHEMA_VERSION))
        except SQLAlchemyError as error:
            self.close()
            raise StgTuneError(f"cannot open the storage {_shown(self.url)}: {reason(error)}") from None
        if version not in (None, SCHEMA_VERSION):
            self.close()
            age = "newer" if version > SCHEMA_VERSION else "older"
            raise StgTuneError(
                f"the storage {_shown(self.url)} has schema version {version}, {age} than version {SCHEMA_VERSION} of "
                f"this stg-tune; its rows are untouched: use the stg-tune that wrote it, or another --storage"
            )


def _version(connection: sa.Connection) -> int | None:
    """Version of the tables that are there; 0: rows from before versions were noted, ``None``: nothing is there."""
    tables = sa.inspect(connection).get_table_names()
    if _SCHEMA.name not in tables:
        return 0 if _EVALUATIONS.name in tables else None
    version: int | None = connection.execute(sa.select(sa.func.max(_SCHEMA.c.version))).scalar()
    return version


def connect_arguments(url: str) -> dict[str, Any]:
    """What the driver of the database is given for each connection."""
    return {"timeout": SQLITE_TIMEOUT} if sa.make_url(url).get_backend_name() == "sqlite" else {}


def tune_sqlite(engine: sa.Engine) -> None:
    """Let SQLite commit into a write-ahead log: no wait for the disk, yet a killed process loses nothing.

    Only a crash of the whole machine can lose the last few rows, never the file. Where the file system cannot keep such
    a log, SQLite stays with its ordinary journal. Other databases are left as they are.
    """
    if engine.dialect.name != "sqlite":
        return

    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    sa.event.listen(engine, "connect", configure)
    engine.dispose()  # connections opened before would not be configured


def _open(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, connect_args=connect_arguments(url), pool_pre_ping=True)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        why = "it is not a URL" if isinstance(error, sa.exc.ArgumentError) else reason(error)
        raise StgTuneError(
            f"the storage cannot be used: {why}; give an SQLAlchemy URL such as sqlite:///study.db or "
            "postgresql+pg8000://user@host/name"
        ) from None
    tune_sqlite(engine)
    return engine


def _row(record: sa.RowMapping) -> Row:
    evaluation = Evaluation(
        config=record["config"],
        pair=Pair(prompt=record["prompt"], seed=record["seed"]),
        scores=json.loads(record["scores"]),
        unscored=json.loads(record["unscored"]),
        seconds=record["seconds"],
        forwards=record["forwards"],
        effects=json.loads(record["effects"]),
        error=record["error"],
    )
    return Row(
        spec=GuidanceSpec.from_dict(json.loads(record["config_json"])),
        evaluation=evaluation,
        role=record["role"],
        fidelity=record["fidelity"],
        worker=record["worker"],
        versions=json.loads(record["versions"]),
    )


def _shown(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

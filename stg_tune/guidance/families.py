"""Finds the architecture record of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models.families import FAMILIES

if TYPE_CHECKING:
    from stg_tune.models.base import Architecture


def architecture_of(pipe: Any) -> Architecture:
    """The record whose pipeline class is the class of ``pipe`` or one it derives from.

    Raises:
        StgTuneError: No known family has such a pipeline.
    """
    records = (*(models.entry(name).architecture for name in models.names()), *FAMILIES)
    known = {name: record for record in records for name in (_class_name(record), *record.variants)}
    for kind in type(pipe).__mro__:
        if kind.__name__ in known:
            return known[kind.__name__]
    raise StgTuneError(
        f"{type(pipe).__name__} is not a known pipeline ({', '.join(sorted(known))}): pass "
        "architecture=Architecture(...) to stg_tune.guided, see docs/models/add-a-model.md."
    )


def _class_name(record: Architecture) -> str:
    return record.pipeline.rpartition(":")[2]

"""The report of a run as a page that follows the run while it works."""

from __future__ import annotations

from stg_tune.serve.live import LivePage, LiveSite, make_page
from stg_tune.serve.state import RunState, read_state

__all__ = ["LivePage", "LiveSite", "RunState", "make_page", "read_state"]

"""Blind votes between two settings of one model: ballot, booth, votes and what they say (no torch)."""

from __future__ import annotations

from stg_tune.vote.ballot import Arm, Ballot, Item
from stg_tune.vote.booth import Booth
from stg_tune.vote.tally import Tally, tally, wilson
from stg_tune.vote.votes import QUESTIONS, Vote, VoteFile, to_csv

__all__ = ["QUESTIONS", "Arm", "Ballot", "Booth", "Item", "Tally", "Vote", "VoteFile", "tally", "to_csv", "wilson"]

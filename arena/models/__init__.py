"""Voters, battles, the ledger, and experiments as they are laid out and judged."""

from arena.models.battles import (
    MIXED,
    PANEL,
    Battle,
    BattleKind,
    PairChance,
    PairList,
    PairNeed,
    ReadyChange,
)
from arena.models.experiments import Block, Experiment, ExperimentState, ObstacleNote, VoteSlot
from arena.models.ledger import (
    SOUND_DEFECTS,
    Choice,
    Defect,
    DefectKind,
    Defects,
    Exclusion,
    Skip,
    Vote,
)
from arena.models.panels import Member, Panel
from arena.models.voters import Voter

__all__ = [
    "MIXED",
    "PANEL",
    "SOUND_DEFECTS",
    "Battle",
    "BattleKind",
    "Block",
    "Choice",
    "Defect",
    "DefectKind",
    "Defects",
    "Exclusion",
    "Experiment",
    "ExperimentState",
    "Member",
    "ObstacleNote",
    "PairChance",
    "PairList",
    "PairNeed",
    "Panel",
    "ReadyChange",
    "Skip",
    "Vote",
    "VoteSlot",
    "Voter",
]

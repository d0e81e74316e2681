"""Checks a snapshot: its signature, and that its votes give its numbers.

Needs no database, but numpy and scipy: for commands alone.
"""

import gzip
import io
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from arena.models import Choice
from ratings.design import Design
from ratings.experiments.blocks import blocks_of, complete_blocks
from ratings.experiments.snapshots import SNAPSHOT_SCHEMA
from ratings.experiments.votes import BlockVote
from ratings.stats.sequential import sequential_test

LARGEST_SNAPSHOT = 200_000_000  # bytes when unpacked: a million votes
# Another processor's arithmetic shows in the last digits; the Elo numbers are kept to a thousandth.
SAME_DIGITS = 1e-6
SAME_ELO = 0.0021
ELO_NUMBERS = ("estimate", "low", "high")
NO_CLIP = UUID(int=0)


class UnreadableSnapshot(Exception):
    """The file is not a whole snapshot that was signed with the right key; one sentence."""


@dataclass(frozen=True)
class Difference:
    """A number that the votes don't give as the file has it."""

    name: str
    said: Any
    given: Any

    def __str__(self) -> str:
        return f"{self.name}: the file says {self.said}, its votes give {self.given}."


@dataclass(frozen=True)
class Snapshot:
    """What is in a file."""

    header: dict[str, Any]
    votes: list[BlockVote]
    numbers: dict[str, Any]


def read_snapshot(path: Path, key: str) -> Snapshot:
    """The file's contents; UnreadableSnapshot unless it is whole and was signed with this key."""
    lines = _unpacked(path).splitlines(keepends=True)
    try:
        signed = json.loads(lines[-1])
        signature, by = bytes.fromhex(signed["signature"]), str(signed["key"])
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(by))
    except (IndexError, ValueError, KeyError, TypeError):
        raise UnreadableSnapshot(f"{path} does not end with a signature: it was cut.") from None
    try:
        signer.verify(signature, b"".join(lines[:-1]))
    except InvalidSignature:
        raise UnreadableSnapshot(f"{path} was changed after it was signed.") from None
    if by != key.lower():
        raise UnreadableSnapshot(
            f"{path} is signed with the key {by}, and {key or 'no other'} was expected: give "
            "--key if you know that it is the right one."
        )
    try:
        header, *votes, numbers = [json.loads(line) for line in lines[:-1]]
        if header["schema"] != SNAPSHOT_SCHEMA:
            raise UnreadableSnapshot(
                f"{path} is a “{header['schema']}”; this program reads a “{SNAPSHOT_SCHEMA}”."
            )
        prompts: dict[str, int] = {}
        return Snapshot(header, [_read_vote(vote, prompts) for vote in votes], numbers)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnreadableSnapshot(
            f"{path} is signed, but is no snapshot as this program knows it."
        ) from None


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())) as file:
            data = file.read(LARGEST_SNAPSHOT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableSnapshot(f"{path} is no gzip file, or was cut.") from None
    except OSError as error:
        raise UnreadableSnapshot(f"{path} can't be read: {error.strerror}.") from None
    if len(data) > LARGEST_SNAPSHOT:
        raise UnreadableSnapshot(f"{path} unpacks to more than {LARGEST_SNAPSHOT // 1_000_000} MB.")
    return data


def _read_vote(line: dict[str, Any], prompts: dict[str, int]) -> BlockVote:
    """A line as the statistics take it, prompts numbered as they come; the rest stays empty."""
    return BlockVote(
        id=line["vote"],
        voter=UUID(line["voter"]),
        choice=Choice(line["choice"]),
        prompt=prompts.setdefault(line["prompt"], len(prompts)),
        prompt_key=line["prompt"],
        block=line["block"],
        position=line["block"],
        seed_slot=0,
        muted=False,
        candidate_is_a=line["candidate"] == "a",
        candidate_clip=NO_CLIP,
        baseline_clip=NO_CLIP,
        out=line["out"],
    )


def differences(file: Snapshot) -> list[Difference]:
    """Each number that its votes give otherwise; the database is not asked.

    Raises UnreadableSnapshot if the design is none.
    """
    given = _recompute(file)
    return [
        Difference(name, file.numbers.get(name), value)
        for name, value in given.items()
        if not _agrees(name, file.numbers.get(name), value)
    ]


def _recompute(file: Snapshot) -> dict[str, Any]:
    pairs = complete_blocks(file.votes)
    try:
        design = Design(
            margin=file.header["margin"],
            alpha=file.header["alpha"],
            beta=file.header["beta"],
            max_blocks=file.header["max_votes"] // 2,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableSnapshot(f"The file's design is none: {error}.") from None
    found = sequential_test(blocks_of(pairs), design)
    return {
        "verdict": found.verdict,
        "rule": found.rule,
        "votes": sum(not vote.out for vote in file.votes),
        "blocks": len(pairs),
        "decided_at": found.decided_at,
        "llr": float(found.llr[-1]) if pairs else 0.0,
        "log_e": float(found.log_e[-1]) if pairs else 0.0,
        **{name: _or_none(getattr(found, name)) for name in ELO_NUMBERS},
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _agrees(name: str, said: Any, given: Any) -> bool:
    if not isinstance(given, float) or not isinstance(said, int | float):
        return bool(said == given)
    tolerance = SAME_ELO if name in ELO_NUMBERS else SAME_DIGITS
    return math.isclose(said, given, rel_tol=SAME_DIGITS, abs_tol=tolerance)

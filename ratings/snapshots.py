"""The votes behind a verdict as a file that anybody can check: signed, and replayed offline.

A snapshot is gzip of JSON lines: a header with the design, a line per vote in the ledger's order,
the numbers that were made of them, and a signature (Ed25519) over all lines before it. The same
assessment gives the same bytes again. Voters stand in it under names that mean nothing elsewhere.
"""

import gzip
import hashlib
import hmac
import io
import json
import math
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.crypto import salted_hmac

from arena.models import Choice, Experiment
from ratings.experiment_votes import BlockVote, blocks_of, complete_blocks, votes_behind
from ratings.leaderboards import LedgerEnd
from ratings.models import Assessment
from ratings.stats import sequential

FORM = "photofinish snapshot 1"
METHOD = (
    "blocks of two votes with sides swapped; sequential probability ratio test of the pentanomial "
    "in normalised Elo and an e-process, both divided by the design effect of voters and prompts; "
    "median-unbiased estimate"
)
LARGEST = 200_000_000  # bytes when unpacked: a million votes
# Another processor's arithmetic shows in the last digits; the Elo numbers are kept to a thousandth.
LAST_DIGITS = 1e-6
LAST_ELO = 0.0021
ELO = ("estimate", "low", "high")
NOBODY = UUID(int=0)  # stands where a file has no clip


class Unreadable(Exception):
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
    """What stands in a file."""

    header: dict[str, Any]
    votes: list[BlockVote]
    numbers: dict[str, Any]


# --- making one ----------------------------------------------------------------------------------


def snapshot(made: Assessment) -> bytes:
    """The file of this assessment's votes and numbers."""
    lines = "".join(
        json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        for line in _lines(made)
    ).encode()
    key = signing_key()
    signed = {"signature": key.sign(lines).hex(), "key": public_key()}
    # No time and no name in the header of the gzip file: they would differ each time.
    return gzip.compress(lines + json.dumps(signed).encode() + b"\n", mtime=0)


def file_name(experiment: Experiment) -> str:
    return f"{experiment.pk}.jsonl.gz"


def snapshot_answer(made: Assessment) -> HttpResponse:
    """The same as what a browser or a script is sent."""
    response = HttpResponse(snapshot(made), content_type="application/gzip")
    name = file_name(made.experiment)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _lines(made: Assessment) -> Iterator[dict[str, Any]]:
    experiment, of = made.experiment, str(made.experiment_id)
    yield {
        "form": FORM,
        "software": software(),
        "method": METHOD,
        "experiment": of,
        "name": experiment.name,
        "candidate": experiment.candidate.slug,
        "baseline": experiment.baseline.slug,
        "category": experiment.category,
        "prompt_set": experiment.prompt_set.slug,
        "prompt_set_digest": experiment.prompt_set.digest,
        "seed_slots": experiment.seed_slots,
        "margin": experiment.margin,
        "alpha": experiment.alpha,
        "beta": experiment.beta,
        "max_votes": experiment.max_votes,
        "created_at": experiment.created_at.isoformat(),
        "last_exclusion": made.last_exclusion_id,
        "simulated_counted": made.simulated_counted,
    }
    end = LedgerEnd(made.last_vote_id, made.last_exclusion_id, made.simulated_counted)
    for vote in votes_behind(experiment, end):
        yield {
            "vote": vote.id,
            "voter": _pseudonym(of, vote.voter),
            "block": vote.position,
            "prompt": vote.prompt_key,
            "candidate": "left" if vote.candidate_left else "right",
            "choice": vote.choice,
            "out": vote.out,
        }
    yield {
        "verdict": made.verdict,
        "rule": made.rule,
        "votes": made.votes,
        "blocks": made.blocks,
        "decided_at": made.decided_at,
        "llr": made.llr,
        "log_e": made.log_e,
        "estimate": made.estimate,
        "low": made.low,
        "high": made.high,
    }


def _pseudonym(experiment: str, voter: UUID) -> str:
    """The same voter is the same within an experiment, and nobody's in another."""
    said = f"voter {experiment} {voter}".encode()
    return hmac.new(_seed(), said, hashlib.sha256).hexdigest()[:32]


def software() -> str:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    return f"{project['name']} {project['version']}"


def _seed() -> bytes:
    """The 32 bytes that sign: SNAPSHOT_KEY, or what SECRET_KEY makes."""
    if not settings.SNAPSHOT_KEY:
        return salted_hmac("photofinish.snapshot", "ed25519", algorithm="sha256").digest()
    try:
        seed = bytes.fromhex(settings.SNAPSHOT_KEY)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ImproperlyConfigured("SNAPSHOT_KEY is not 64 hexadecimal digits: set such, or none.")
    return seed


def signing_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_seed())


def public_key() -> str:
    """What checks this site's snapshots, in hexadecimal; may be given to anybody."""
    return signing_key().public_key().public_bytes_raw().hex()


# --- reading and checking one --------------------------------------------------------------------


def read_snapshot(path: Path, key: str) -> Snapshot:
    """The file's contents, if it is whole and was signed with this key; Unreadable otherwise."""
    lines = _unpacked(path).splitlines(keepends=True)
    try:
        signed = json.loads(lines[-1])
        signature, by = bytes.fromhex(signed["signature"]), str(signed["key"])
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(by))
    except (IndexError, ValueError, KeyError, TypeError):
        raise Unreadable(f"{path} does not end with a signature: it was cut.") from None
    try:
        signer.verify(signature, b"".join(lines[:-1]))
    except InvalidSignature:
        raise Unreadable(f"{path} was changed after it was signed.") from None
    if by != key.lower():
        raise Unreadable(
            f"{path} is signed with the key {by}, and {key or 'no other'} was expected: give "
            "--key if you know that it is the right one."
        )
    try:
        header, *votes, numbers = [json.loads(line) for line in lines[:-1]]
        if header["form"] != FORM:
            raise Unreadable(f"{path} is a “{header['form']}”; this program reads a “{FORM}”.")
        prompts: dict[str, int] = {}
        return Snapshot(header, [_vote(vote, prompts) for vote in votes], numbers)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreadable(
            f"{path} is signed, but is no snapshot as this program knows it."
        ) from None


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())) as file:
            data = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Unreadable(f"{path} is no gzip file, or was cut.") from None
    except OSError as error:
        raise Unreadable(f"{path} can't be read: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise Unreadable(f"{path} unpacks to more than {LARGEST // 1_000_000} MB.")
    return data


def _vote(line: dict[str, Any], prompts: dict[str, int]) -> BlockVote:
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
        candidate_left=line["candidate"] == "left",
        candidate_clip=NOBODY,
        baseline_clip=NOBODY,
        out=line["out"],
    )


def differences(file: Snapshot) -> list[Difference]:
    """Each number that its votes give otherwise; the database is not asked.

    Raises Unreadable if the design is none.
    """
    given = _numbers(file)
    return [
        Difference(name, file.numbers.get(name), value)
        for name, value in given.items()
        if not _same(name, file.numbers.get(name), value)
    ]


def _numbers(file: Snapshot) -> dict[str, Any]:
    pairs = complete_blocks(file.votes)
    try:
        design = sequential.Design(
            margin=file.header["margin"],
            alpha=file.header["alpha"],
            beta=file.header["beta"],
            max_blocks=file.header["max_votes"] // 2,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"The file's design is none: {error}.") from None
    found = sequential.assess(blocks_of(pairs), design)
    return {
        "verdict": found.verdict,
        "rule": found.rule,
        "votes": sum(not vote.out for vote in file.votes),
        "blocks": len(pairs),
        "decided_at": found.decided_at,
        "llr": float(found.llr[-1]) if pairs else 0.0,
        "log_e": float(found.log_e[-1]) if pairs else 0.0,
        **{name: _finite(getattr(found, name)) for name in ELO},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _same(name: str, said: Any, given: Any) -> bool:
    if not isinstance(given, float) or not isinstance(said, int | float):
        return bool(said == given)
    last = LAST_ELO if name in ELO else LAST_DIGITS
    return math.isclose(said, given, rel_tol=LAST_DIGITS, abs_tol=last)

"""The votes behind a verdict as a signed file that anybody can check.

A snapshot is gzip of JSON lines: a header with the design, a line per vote in the ledger's order,
the numbers that were made of them, and a signature (Ed25519) over all lines before it. The same
assessment gives the same bytes again. Voters have names in it that mean nothing
elsewhere. `ratings/experiments/verification.py` reads it.
"""

import gzip
import hashlib
import hmac
import json
import tomllib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.crypto import salted_hmac

from arena.ledger import LedgerEnd
from arena.models import Experiment
from ratings.experiments.votes import votes_behind
from ratings.models import Assessment

SNAPSHOT_SCHEMA = "photofinish snapshot 2"
SNAPSHOT_METHOD = (
    "blocks of two votes with sides swapped; sequential probability ratio test of the pentanomial "
    "in normalised Elo and an e-process, both divided by the design effect of voters and prompts; "
    "median-unbiased estimate"
)


def make_snapshot(made: Assessment) -> bytes:
    """The file of this assessment's votes and numbers."""
    lines = "".join(
        json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        for line in _snapshot_lines(made)
    ).encode()
    key = signing_key()
    signed = {"signature": key.sign(lines).hex(), "key": public_key()}
    # No time and no name in the header of the gzip file: they would differ each time.
    return gzip.compress(lines + json.dumps(signed).encode() + b"\n", mtime=0)


def file_name(experiment: Experiment) -> str:
    return f"{experiment.pk}.jsonl.gz"


def snapshot_answer(made: Assessment) -> HttpResponse:
    """The same as what a browser or a script is sent."""
    response = HttpResponse(make_snapshot(made), content_type="application/gzip")
    name = file_name(made.experiment)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _snapshot_lines(made: Assessment) -> Iterator[dict[str, Any]]:
    experiment, of = made.experiment, str(made.experiment_id)
    yield {
        "schema": SNAPSHOT_SCHEMA,
        "software": software(),
        "method": SNAPSHOT_METHOD,
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
            "candidate": "a" if vote.candidate_is_a else "b",
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

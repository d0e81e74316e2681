"""Robustness findings as pages read them: the newest that this release understands."""

from ratings.models import Robustness

# Raised when what is stored changes its shape: findings of another version are then made again.
ROBUSTNESS_SCHEMA_VERSION = 3
# Votes of a pair from which on its win rate is compared with the expected one.
PAIR_VOTES = 30


def newest_findings(category: str) -> Robustness | None:
    """The newest findings, unless another release stored them."""
    newest = Robustness.objects.filter(category=category).order_by("-pk").first()
    known = newest and newest.findings.get("schema_version") == ROBUSTNESS_SCHEMA_VERSION
    return newest if known else None


def newest_slices(category: str) -> list[str]:
    """The slices that have a board of the newest findings; the findings themselves stay there."""
    newest = (
        Robustness.objects.filter(category=category)
        .order_by("-pk")
        .values_list("findings__schema_version", "findings__slices")
        .first()
    )
    return newest[1] if newest and newest[0] == ROBUSTNESS_SCHEMA_VERSION else []

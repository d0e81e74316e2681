"""Visitors who came, were shown pairs and answered none."""

from datetime import timedelta

from django.db.models import Exists, OuterRef
from django.utils import timezone

from arena.models import Battle, Exclusion, Member, Skip, Vote, Voter

VISIT_AGE = timedelta(days=1)
FORGOTTEN_AT_ONCE = 10_000


def forget_visitors() -> int:
    """Delete them a day after their last pair; returns how many rows went.

    Link previews and crawlers that ignore robots.txt leave thousands. Whoever has answered
    anything, sits on a panel, or is simulated, stays.
    """
    old = timezone.now() - VISIT_AGE
    mine = {"battle__voter": OuterRef("pk")}
    silent = Voter.objects.filter(
        ~Exists(Vote.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Skip.objects.filter(**mine)),
        ~Exists(Exclusion.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Member.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Battle.objects.filter(voter=OuterRef("pk"), expires_at__gt=old)),
        simulated=False,
        created_at__lt=old,
    )
    voters = list(silent.values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    Battle.objects.filter(voter__in=voters).delete()
    return Voter.objects.filter(pk__in=voters).delete()[0]

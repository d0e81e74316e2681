from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from rich.console import Console
from rich.progress import track

from arena.models import Battle
from generation.media import profile
from generation.media.pauses import why_paused
from generation.media.profile import EncodingError
from generation.media.storage import StorageRefuses
from generation.models import Clip, ClipState
from generation.rendering.publish import encode_again

TO_BE_RUN_AGAIN = "{} renditions were made: run this again later."


class Command(BaseCommand):
    help = (
        "Make the renditions of earlier profiles again from their masters, with the newest one. "
        "Safe to stop and to repeat."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        done, failed = 0, 0
        pks = list(_not_on_screen(_old()).values_list("pk", flat=True))
        for pk in track(pks, "Encoding", console=Console()):
            if why := why_paused():
                raise CommandError(f"{why} {TO_BE_RUN_AGAIN.format(done)}")
            try:
                done += encode_again(pk, _not_on_screen(_old()))
            except StorageRefuses as error:
                raise CommandError(f"{error} {TO_BE_RUN_AGAIN.format(done)}") from None
            except (EncodingError, OSError) as error:
                failed += 1
                self.stdout.write(f"clip {pk}: {error}")
        left = _old().count()
        self.stdout.write(
            f"{done} renditions made again with profile {profile.PROFILE.number}; {left} of "
            "earlier profiles are left."
        )
        if failed:
            raise CommandError(f"{failed} clips could not be encoded again; they stay as they are.")
        if left:
            self.stdout.write("They stand in open battles: run this again in an hour.")


def _old() -> QuerySet[Clip]:
    return Clip.objects.filter(state=ClipState.READY, profile__lt=profile.PROFILE.number)


def _not_on_screen(clips: QuerySet[Clip]) -> QuerySet[Clip]:
    """Those that no voter has on the screen: a file does not change while it is looked at."""
    battles = Battle.objects.filter(expires_at__gt=Now(), vote__isnull=True, skip__isnull=True)
    return clips.exclude(Q(pk__in=battles.values("clip_a")) | Q(pk__in=battles.values("clip_b")))

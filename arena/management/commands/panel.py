import csv
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from arena.experiments.panels import add_members
from arena.models import Panel

MEMBERS_AT_MOST = 500


class Command(BaseCommand):
    help = (
        "Make a panel, or find it, add members to it and print all their links as CSV. Links are "
        "whole where SITE_ADDRESS is set."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", help="Of a new panel; default: its slug.")
        parser.add_argument("--quota", type=int, help="Of a new panel; votes of each member.")
        parser.add_argument("--members", type=int, default=0, help="To add; default: %(default)s.")

    def handle(self, *args: Any, slug: str, members: int, **options: Any) -> None:
        if not 0 <= members <= MEMBERS_AT_MOST:
            raise CommandError(f"--members is {members}: give 0 to {MEMBERS_AT_MOST}.")
        panel = Panel.objects.filter(slug=slug).first() or self._make(slug, **options)
        add_members(panel, members)
        writer = csv.writer(self.stdout, lineterminator="\n")
        writer.writerow(["label", "link"])
        for member in panel.members.filter(revoked=False).order_by("pk"):
            writer.writerow(
                [member.label, settings.SITE_ADDRESS + reverse("panel", args=[member.token])]
            )

    def _make(self, slug: str, name: str | None, quota: int | None, **options: Any) -> Panel:
        panel = Panel(slug=slug, name=name or slug)
        if quota is not None:
            panel.quota = quota
        try:
            panel.full_clean()
        except ValidationError as error:
            field, sentences = next(iter(error.message_dict.items()))
            raise CommandError(f"{field}: {sentences[0]}") from None
        panel.save()
        return panel

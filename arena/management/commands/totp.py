import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import segno
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django_otp.plugins.otp_totp.models import TOTPDevice


class Command(BaseCommand):
    help = (
        "Give an operator a device for sign-in codes, in place of the one there was, and print its "
        "address for the authenticator app. It is shown this once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The account.")
        parser.add_argument(
            "--svg", metavar="FILE", type=Path, help="Write the address as a QR code to a new file."
        )

    def handle(self, *args: Any, name: str, svg: Path | None, **options: Any) -> None:
        user = User.objects.filter(username=name).first()
        if user is None or not user.is_staff:
            raise CommandError(
                f"“{name}” is no operator: make the account with `manage.py createsuperuser`, or "
                "in /admin/ with staff status."
            )
        with transaction.atomic():
            TOTPDevice.objects.filter(user=user).delete()
            device = TOTPDevice.objects.create(user=user, name="authenticator app")
            if svg is not None:
                _write_qr_code(device.config_url, svg)
        self.stdout.write(device.config_url)


def _write_qr_code(address: str, file: Path) -> None:
    """Only this account may read it, as whoever sees it can make the codes."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(
            f"{file} can't be written: {error.strerror}. The device was not changed."
        ) from None
    with open(descriptor, "wb") as output:
        segno.make(address).save(output, kind="svg", scale=5)

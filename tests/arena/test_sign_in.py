"""An operator signs in at /admin/; whoever guesses is held back, seen in the log, and told when."""

import base64
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from django_otp.oath import totp
from django_otp.plugins.otp_totp.models import TOTPDevice

from arena import checks

pytestmark = pytest.mark.django_db
PAGE = "/admin/login/"
PASSWORD = "a horse called seven winters"
WRONG = "This name, password or code is wrong, or the account is no operator’s."


@pytest.fixture
def olga() -> User:
    return User.objects.create_superuser("olga", password=PASSWORD)


def sign_in(
    client: Client, name: str = "olga", password: str = PASSWORD, code: str = "", **headers: str
) -> HttpResponse:
    given = {"username": name, "password": password, "code": code, "next": "/admin/"}
    return client.post(PAGE, given, **headers)


def wait_out_the_pause() -> None:
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=15, seconds=1))


@pytest.mark.parametrize(
    "password", ["1", "short-1!", "olga-the-great-olga", "918273645546372819", "administrator"]
)
def test_weak_passwords_are_refused(client: Client, password: str) -> None:
    client.force_login(User.objects.create_superuser("olga-the-great", password=PASSWORD))
    for given, status in ((password, 200), (f"{PASSWORD}, or eight", 302)):
        data = {"old_password": PASSWORD, "new_password1": given, "new_password2": given}
        assert client.post("/admin/password_change/", data).status_code == status


def test_a_session_ends_after_half_a_day(olga: User, client: Client) -> None:
    assert sign_in(client).status_code == 302
    assert client.session.get_expiry_age() == 12 * 3600


class TestFailedSignIns:
    def test_are_lines_in_the_log_without_the_password(
        self, olga: User, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            page = sign_in(client, password="wrong but long enough")
            sign_in(client, name="nobody\n2026 forged line", password="wrong but long enough")
        assert WRONG in page.text
        failed = [r for r in caplog.records if "Sign-in failed" in r.message]
        assert [record.levelname for record in failed] == ["WARNING"] * 2
        assert failed[0].message == "Sign-in failed: 'olga' from 127.0.0.1."
        assert "\n" not in failed[1].message
        assert "long enough" not in caplog.text

    def test_shut_the_door_for_a_while(self, olga: User, client: Client) -> None:
        for _ in range(4):
            assert sign_in(client, password="wrong").status_code == 200
        fifth = sign_in(client, password="wrong")
        assert fifth.status_code == 429
        again = sign_in(client)
        assert again.status_code == 429
        said = re.search(r"Try again at <strong>.*?</strong>, in (\d+) minutes", again.text)
        assert said is not None
        assert 14 <= int(said[1]) <= 15
        assert 800 <= int(again.headers["Retry-After"]) <= 900
        assert "Content-Security-Policy" in again.headers
        # Another name, and the same name from elsewhere, are not shut out.
        User.objects.create_superuser("paul", password=PASSWORD)
        assert sign_in(Client(), name="paul").status_code == 302
        assert sign_in(Client(REMOTE_ADDR="127.0.0.9")).status_code == 302

    def test_the_door_opens_when_the_page_says(self, olga: User, client: Client) -> None:
        for _ in range(6):
            sign_in(client, password="wrong")
        before = AccessAttempt.objects.get().attempt_time
        assert sign_in(client).status_code == 429
        assert AccessAttempt.objects.get().attempt_time == before  # trying does not lengthen it
        wait_out_the_pause()
        assert sign_in(client).status_code == 302
        assert not AccessAttempt.objects.exists()

    def test_a_good_sign_in_starts_the_count_again(self, olga: User, client: Client) -> None:
        for _ in range(3):
            for _ in range(4):
                sign_in(client, password="wrong")
            assert sign_in(client).status_code == 302

    def test_unknown_names_are_shut_out_alike(self, olga: User, client: Client) -> None:
        statuses = [sign_in(client, name="nobody").status_code for _ in range(6)]
        assert statuses == [200, 200, 200, 200, 429, 429]

    @pytest.mark.parametrize("name", ["x" * 300, "a\0b", "", "ü" * 150, "'; DROP TABLE x; --"])
    def test_a_strange_name_is_a_sentence(self, client: Client, name: str) -> None:
        for _ in range(6):
            assert sign_in(client, name=name, password="wrong").status_code in (200, 400, 429)

    def test_what_the_tables_keep_has_no_password(self, olga: User, client: Client) -> None:
        sign_in(client, password="wrong but long enough", code="123456")
        kept = " ".join(str(v) for v in AccessAttempt.objects.values().get().values())
        assert "long enough" not in kept
        assert "123456" not in kept


class TestWhoseFailuresTheyAre:
    @pytest.mark.parametrize(
        ("setting", "headers", "counted"),
        [
            ("REMOTE_ADDR", {"REMOTE_ADDR": "127.0.0.5"}, "127.0.0.5"),
            ("REMOTE_ADDR", {"REMOTE_ADDR": "127.0.0.5", "HTTP_X_REAL_IP": "9.9.9.9"}, "127.0.0.5"),
            ("X-Real-IP", {"HTTP_X_REAL_IP": "203.0.113.7"}, "203.0.113.7"),
            # What the visitor sent stands first; the proxy adds the last.
            ("X-Forwarded-For", {"HTTP_X_FORWARDED_FOR": "1.1.1.1, 203.0.113.7"}, "203.0.113.7"),
            ("X-Real-IP", {"HTTP_X_REAL_IP": "not an address"}, "127.0.0.1"),
            ("X-Real-IP", {}, "127.0.0.1"),
            ("REMOTE_ADDR", {"REMOTE_ADDR": "2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::"),
            ("REMOTE_ADDR", {"REMOTE_ADDR": "fe80::1%eth0"}, "fe80::"),
            ("REMOTE_ADDR", {"REMOTE_ADDR": ""}, None),
        ],
    )
    def test_is_what_the_setting_names(
        self, client: Client, settings: Any, setting: str, headers: dict[str, str], counted: str
    ) -> None:
        settings.CLIENT_ADDRESS = setting
        sign_in(client, password="wrong", **headers)
        assert AccessAttempt.objects.get().ip_address == counted

    @pytest.mark.parametrize(
        ("address", "proxy", "said"),
        [
            ("REMOTE_ADDR", None, ""),
            ("X-Real-IP", ("HTTP_X_FORWARDED_PROTO", "https"), ""),
            ("REMOTE_ADDR", ("HTTP_X_FORWARDED_PROTO", "https"), "by the proxy's own address"),
            ("X-Real-IP", None, "anybody may choose the address"),
        ],
    )
    def test_that_does_not_fit_the_proxy_is_a_sentence(
        self, settings: Any, address: str, proxy: tuple[str, str] | None, said: str
    ) -> None:
        settings.CLIENT_ADDRESS = address
        settings.SECURE_PROXY_SSL_HEADER = proxy
        found = [str(message) for message in checks.client_address_fits_the_proxy()]
        assert len(found) == bool(said)
        assert said in " ".join(found)


def code_of(device: TOTPDevice, steps: int = 0) -> str:
    """What an authenticator app shows, so many half minutes from now."""
    return f"{totp(device.bin_key, t0=-30 * steps):06d}"


class TestCodes:
    @pytest.fixture(autouse=True)
    def required(self, settings: Any) -> None:
        settings.REQUIRE_TOTP = True

    @pytest.fixture
    def device(self, olga: User, capsys: pytest.CaptureFixture[str]) -> TOTPDevice:
        """Made by the command, and read from its address as an app reads it."""
        call_command("totp", "olga")
        address = urlsplit(capsys.readouterr().out.strip())
        assert (address.scheme, address.netloc) == ("otpauth", "totp")
        assert address.path.endswith("olga")
        device = TOTPDevice.objects.get(user=olga)
        (secret,) = parse_qs(address.query)["secret"]
        assert base64.b32decode(secret) == device.bin_key
        return device

    def test_are_asked_for_beside_the_password(
        self, olga: User, device: TOTPDevice, client: Client
    ) -> None:
        assert 'autocomplete="one-time-code"' in client.get(PAGE).text
        for code in ("", "000000", "abc"):
            assert WRONG in sign_in(client, code=code).text
            TOTPDevice.objects.update(throttling_failure_timestamp=None)
        assert client.get("/admin/").status_code == 302
        assert sign_in(client, code=code_of(device)).status_code == 302
        assert client.get("/admin/").status_code == 200
        assert client.get("/experiments/").status_code == 200

    def test_work_once(self, device: TOTPDevice, client: Client) -> None:
        code = code_of(device)
        assert sign_in(client, code=code).status_code == 302
        assert WRONG in sign_in(Client(), code=code).text

    def test_that_are_wrong_count_as_failed_sign_ins(
        self, device: TOTPDevice, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        statuses = [sign_in(client, code="000000").status_code for _ in range(6)]
        assert statuses == [200, 200, 200, 200, 429, 429]
        assert caplog.text.count("Sign-in failed: 'olga'") == 6

    def test_of_another_operator_do_not_help(self, device: TOTPDevice, client: Client) -> None:
        User.objects.create_superuser("paul", password=PASSWORD)
        assert WRONG in sign_in(client, name="paul", code=code_of(device)).text

    def test_a_session_without_one_is_none(
        self, olga: User, device: TOTPDevice, client: Client, make_version: Callable
    ) -> None:
        make_version("secret", state="trial")
        client.force_login(olga)  # as before the site asked for codes
        assert client.get("/admin/").status_code == 302
        assert client.get("/experiments/").status_code == 302
        assert client.get("/models/scenes/").status_code == 404

    def test_a_lost_device_is_replaced(
        self, device: TOTPDevice, client: Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert sign_in(client, code=code_of(device)).status_code == 302
        call_command("totp", "olga")
        assert client.get("/admin/").status_code == 302  # what it had opened is shut
        assert WRONG in sign_in(client, code=code_of(device, steps=1)).text
        TOTPDevice.objects.update(throttling_failure_timestamp=None)  # a second later
        new = TOTPDevice.objects.get()
        assert sign_in(client, code=code_of(new)).status_code == 302

    def test_the_admin_shows_who_has_one_and_no_key(
        self, olga: User, device: TOTPDevice, client: Client
    ) -> None:
        sign_in(client, code=code_of(device))
        page = client.get("/admin/otp_totp/totpdevice/")
        assert "olga" in page.text
        for address in (f"{device.pk}/change/", f"{device.pk}/qrcode/", f"{device.pk}/config/"):
            answer = client.get(f"/admin/otp_totp/totpdevice/{address}", follow=True)
            assert device.key not in answer.text
            assert "otpauth" not in answer.text
        assert client.get("/admin/otp_totp/totpdevice/add/").status_code == 403
        client.post(f"/admin/otp_totp/totpdevice/{device.pk}/delete/", {"post": "yes"})
        assert not TOTPDevice.objects.exists()

    def test_the_picture_is_a_file_for_its_owner_alone(
        self, olga: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "olga.svg"
        call_command("totp", "olga", "--svg", str(file))
        assert file.read_bytes().startswith(b"<?xml")
        assert file.stat().st_mode & 0o077 == 0
        first = TOTPDevice.objects.get().key
        with pytest.raises(
            CommandError, match=r"can't be written: File exists. The device was not"
        ):
            call_command("totp", "olga", "--svg", str(file))
        assert TOTPDevice.objects.get().key == first

    @pytest.mark.parametrize("name", ["nobody", "reader"])
    def test_only_operators_get_one(self, name: str) -> None:
        User.objects.create_user("reader")
        with pytest.raises(CommandError, match=f"“{name}” is no operator"):
            call_command("totp", name)

    def test_whoever_lacks_one_is_named_by_the_checks(self, olga: User) -> None:
        (found,) = checks.operators_have_devices()
        assert "can't sign in: olga." in str(found)
        TOTPDevice.objects.create(user=olga, name="app")
        assert checks.operators_have_devices() == []


def test_a_site_that_asks_for_no_codes_shows_no_field(olga: User, client: Client) -> None:
    assert "one-time-code" not in client.get(PAGE).text
    assert sign_in(client).status_code == 302

"""System checks: each says what is wrong and what to set."""

import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, ProgrammingError, connection

from arena.ledger import LEDGER_TABLES
from generation.media.folder import MediaFolder
from generation.media.storage import media_storage, probe_storage


@register()
def secret_key_is_set(**_: Any) -> list[CheckMessage]:
    try:
        settings.SECRET_KEY  # noqa: B018  reading an empty one raises
    except ImproperlyConfigured:
        pass
    else:
        return []
    return [
        Error(
            "There is no SECRET_KEY.",
            hint="Set the environment variable SECRET_KEY to 50 random characters and keep it.",
            id="photofinish.E001",
        )
    ]


@register()
def rates_of_checks_are_shares(**_: Any) -> list[CheckMessage]:
    rates = (settings.CHECK_SAME, settings.CHECK_REPEAT, settings.CHECK_GOLD)
    if min(rates) >= 0 and sum(rates) <= 0.5:
        return []
    return [
        Error(
            "The rates of checks leave less than half of the pairs to experiments, or one is "
            "negative.",
            hint="Set CHECK_SAME, CHECK_REPEAT and CHECK_GOLD to shares that make at most 0.5 "
            "together.",
            id="photofinish.E006",
        )
    ]


@register()
def snapshot_key_is_whole(**_: Any) -> list[CheckMessage]:
    if not settings.SNAPSHOT_KEY or re.fullmatch("[0-9a-fA-F]{64}", settings.SNAPSHOT_KEY):
        return []
    return [
        Error(
            "SNAPSHOT_KEY is not 64 hexadecimal digits.",
            hint="Set it to the output of `openssl rand -hex 32`, or leave it out.",
            id="photofinish.E007",
        )
    ]


@register()
def the_proxy_finds_the_media(**_: Any) -> list[CheckMessage]:
    address = settings.ACCEL_REDIRECT
    if not address:
        return []
    if not isinstance(media_storage(), MediaFolder):
        said = "ACCEL_REDIRECT is set, and the media are not in a folder that the proxy could read."
        hint = "Leave ACCEL_REDIRECT out: the site passes on what is in an object store."
    elif not re.fullmatch(r"/([\w.-]+/)+", address, re.ASCII):
        said = f"ACCEL_REDIRECT is “{address}”, which is no address of a location."
        hint = "Set it to the internal location of deploy/nginx.conf, /stored-media/."
    else:
        return []
    return [Error(said, hint=hint, id="photofinish.E015")]


@register(Tags.database)
def database_answers(**_: Any) -> list[CheckMessage]:
    try:
        connection.ensure_connection()
    except (OperationalError, ImproperlyConfigured) as error:
        reason = str(error).strip().splitlines()[0]
        return [
            Error(
                f"PostgreSQL does not answer: {reason}.",
                hint="Set DATABASE_URL to postgres://USER:PASSWORD@HOST:PORT/NAME of a running "
                "server, or use `make demo`, which starts one.",
                id="photofinish.E002",
            )
        ]
    return []


@register(Tags.database, deploy=True)
def ledger_is_append_only(**_: Any) -> list[CheckMessage]:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
                " AND has_table_privilege(name, 'UPDATE, DELETE, TRUNCATE')",
                [list(LEDGER_TABLES)],
            )
            open_tables = [row[0] for row in cursor.fetchall()]
    except (OperationalError, ImproperlyConfigured):
        return []  # the check above says so
    if not open_tables:
        return []
    return [
        Error(
            f"The site's database role may change the ledger ({', '.join(open_tables)}).",
            hint="Let another role own the tables: run `migrate` as the owner with SITE_ROLE set "
            "to the site's role, and use the site's role in DATABASE_URL.",
            id="photofinish.E003",
        )
    ]


@register(deploy=True)
def sign_in_is_more_than_a_password(**_: Any) -> list[CheckMessage]:
    if settings.TOTP_IS_DECIDED:
        return []
    return [
        Warning(
            "Operators sign in with a password alone.",
            hint="Set REQUIRE_TOTP=1 to ask for a code too, after `manage.py totp NAME` for each "
            "operator. If only a private network reaches /admin/ and /experiments/, set "
            "REQUIRE_TOTP=0.",
            id="photofinish.W010",
        )
    ]


@register(Tags.database, deploy=True)
def operators_have_devices(**_: Any) -> list[CheckMessage]:
    if not settings.REQUIRE_TOTP:
        return []
    from django.contrib.auth.models import User

    try:
        operators = User.objects.filter(is_staff=True, is_active=True)
        without = operators.exclude(totpdevice__confirmed=True).order_by("username")
        names = list(without.values_list("username", flat=True)[:10])
    except (OperationalError, ProgrammingError, ImproperlyConfigured):
        return []  # no database, as another check says, or no tables yet
    if not names:
        return []
    return [
        Warning(
            f"REQUIRE_TOTP is set, and these operators can't sign in: {', '.join(names)}.",
            hint="Run `manage.py totp NAME` for each, or take their staff status away.",
            id="photofinish.W011",
        )
    ]


@register(deploy=True)
def client_address_fits_the_proxy(**_: Any) -> list[CheckMessage]:
    by_header = settings.CLIENT_ADDRESS != "REMOTE_ADDR"
    behind_proxy = hasattr(settings, "SECURE_PROXY_SSL_HEADER") and bool(
        settings.SECURE_PROXY_SSL_HEADER
    )
    if by_header == behind_proxy:
        return []
    if by_header:
        said = (
            f"CLIENT_ADDRESS names the header {settings.CLIENT_ADDRESS}, and BEHIND_PROXY is not "
            "set: without a proxy that sets it, anybody may choose the address that failed "
            "sign-ins count for."
        )
        hint = "Set BEHIND_PROXY=1, or leave CLIENT_ADDRESS out."
    else:
        said = (
            "BEHIND_PROXY is set, and failed sign-ins count by the proxy's own address: whoever "
            "fails too often shuts the operator of that name out."
        )
        hint = (
            "Set CLIENT_ADDRESS to the header in which the proxy gives the visitor's address, "
            "such as X-Real-IP, and let the proxy overwrite what visitors send there."
        )
    return [Warning(said, hint=hint, id="photofinish.W012")]


@register(deploy=True)
def sign_in_limits_are_sane(**_: Any) -> list[CheckMessage]:
    minutes = settings.AXES_COOLOFF_TIME.total_seconds() / 60
    if 1 <= settings.AXES_FAILURE_LIMIT <= 20 and minutes >= 1:
        return []
    return [
        Error(
            f"{settings.AXES_FAILURE_LIMIT} failed sign-ins in a row and a pause of {minutes:g} "
            "minutes hold nobody back, or let nobody in.",
            hint="Set SIGN_IN_FAILURES to 1 to 20 and SIGN_IN_PAUSE_MINUTES to 1 or more.",
            id="photofinish.E013",
        )
    ]


@register(deploy=True)
def redis_answers(**_: Any) -> list[CheckMessage]:
    import redis  # the web process never asks it

    try:
        redis.Redis.from_url(settings.CELERY_BROKER_URL, socket_connect_timeout=3).ping()
    except (redis.RedisError, ValueError) as error:
        return [
            Error(
                f"Redis does not answer: {error}.",
                hint="Set REDIS_URL to redis://HOST:PORT/0 of a running server.",
                id="photofinish.E004",
            )
        ]
    return []


@register(deploy=True)
def storage_answers(**_: Any) -> list[CheckMessage]:
    try:
        probe_storage()
    except Exception as error:  # every storage has errors of its own
        return [
            Error(
                f"The media storage does not answer: {error}.",
                hint="Set MEDIA_STORAGE to file:///a/folder or s3://bucket/prefix?endpoint_url=…",
                id="photofinish.E005",
            )
        ]
    return []


@register(Tags.database, deploy=True)
def nothing_is_paused(**_: Any) -> list[CheckMessage]:
    from generation.media.pauses import pauses_now, why_too_full

    try:
        reasons = [pause.reason for pause in pauses_now()] or list(filter(None, [why_too_full()]))
    except (OperationalError, ProgrammingError, ImproperlyConfigured):
        return []  # no database, as another check says, or no tables yet
    return [
        Warning(
            f"What writes is paused: {reason}",
            hint="Make room, or mend the storage; it goes on by itself then. MEDIA_MIN_FREE sets "
            "how many bytes must be free.",
            id="photofinish.W014",
        )
        for reason in reasons
    ]

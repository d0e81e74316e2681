"""Settings. Everything that differs between a laptop and a cluster comes from the environment.

docs/operations.md lists the variables. What is missing or does not answer is reported by
`arena/checks.py` as a sentence that says what to set.
"""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# The demo runs over plain HTTP on one machine and may count its simulated voters.
DEMO = env.bool("DEMO", default=False)
COUNT_SIMULATED_VOTES = env.bool("COUNT_SIMULATED_VOTES", default=False)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "generation",
    "arena",
    "ratings",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "arena.middleware.content_security_policy",
    "arena.middleware.errors_of_the_api_as_json",
    "arena.middleware.say_when_the_database_is_away",
    "arena.middleware.refuse_nul",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "arena.urls"
WSGI_APPLICATION = "arena.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "arena.context.site",
            ],
        },
    },
]

# The site's role may only insert into the ledger. `migrate` runs as the owner: give it the owner's
# address in DATABASE_URL; afterwards it grants SITE_ROLE what the site needs.
DATABASE_URL = env.str("DATABASE_URL", default="")
SITE_ROLE = env.str("SITE_ROLE", default="")
DATABASES: dict[str, dict[str, Any]] = {
    "default": environ.Env.db_url_config(DATABASE_URL or "postgres://127.0.0.1/photofinish")
}
# A connection that a restarted server has cut is replaced before it is used.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
if pool_size := env.int("DATABASE_POOL_SIZE", default=0):  # set by the web process only
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {
        "min_size": 1,
        "max_size": pool_size,
        "timeout": 5,
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# A clip that takes longer fails in words, its model stays loaded. A process that could not be
# stopped by then has so many seconds more; then it is killed, and its lease runs out.
RENDER_SECONDS_AT_MOST = env.float("RENDER_SECONDS_AT_MOST", default=3600.0)
RENDER_SECONDS_TO_STOP = env.float("RENDER_SECONDS_TO_STOP", default=60.0)

REDIS_URL = env.str("REDIS_URL", default="")
CELERY_BROKER_URL = REDIS_URL or "redis://127.0.0.1:6379/0"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Above the longest render, or Redis would hand its message to a second worker.
    "visibility_timeout": max(
        4 * 3600, round(2 * (RENDER_SECONDS_AT_MOST + RENDER_SECONDS_TO_STOP))
    ),
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
}
CELERY_TASK_DEFAULT_QUEUE = "cpu"
CELERY_TASK_ROUTES = {
    "generation.tasks.render_waiting": {"queue": "gpu"},
    "generation.tasks.submit_hosted": {"queue": "hosted"},
    "generation.tasks.poll_hosted": {"queue": "hosted"},
}
CELERY_BEAT_SCHEDULE = {
    # A wake-up that Redis lost is sent again; one that no idle worker took by then evaporates.
    "wake workers": {
        "task": "generation.tasks.wake_workers",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "wake importers": {
        "task": "generation.tasks.wake_importers",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "wake hosted workers": {
        "task": "generation.tasks.wake_hosted",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "refit": {
        "task": "ratings.tasks.refit_changed",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "scrutinise": {
        "task": "ratings.tasks.scrutinise_changed",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "withdraw lost clips": {
        "task": "generation.tasks.withdraw_lost_clips",
        "schedule": 24 * 3600.0,
        "options": {"expires": 3600},
    },
    "free excluded halves": {
        "task": "arena.tasks.free_excluded_halves",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "free all excluded halves": {  # the entry above looks at the last minutes' alone
        "task": "arena.tasks.free_excluded_halves",
        "kwargs": {"recent": False},
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "make experiment checks": {
        "task": "arena.tasks.make_experiment_checks",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "sweep visitors": {
        "task": "arena.tasks.sweep_visitors",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "thin leaderboards": {
        "task": "ratings.tasks.thin_leaderboards",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "assess": {
        "task": "ratings.tasks.assess_changed",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "send verdicts": {
        "task": "ratings.tasks.send_verdicts",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "sweep media": {
        "task": "generation.tasks.sweep_media",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
}

# A worker that stops its heartbeat for this long is taken for dead and its clip goes to another.
RENDER_LEASE_SECONDS = env.float("RENDER_LEASE_SECONDS", default=45.0)
RENDER_ATTEMPTS = env.int("RENDER_ATTEMPTS", default=3)
# Clips ordered from paid services: how many are out at once, how long an answer may take, and when
# an order that is not done is asked after no more.
HOSTED_JOBS_AT_MOST = env.int("HOSTED_JOBS_AT_MOST", default=20)
HOSTED_TIMEOUT_SECONDS = env.float("HOSTED_TIMEOUT_SECONDS", default=30.0)
HOSTED_SECONDS_AT_MOST = env.float("HOSTED_SECONDS_AT_MOST", default=7200.0)
BATTLE_MINUTES = env.int("BATTLE_MINUTES", default=60)
# Of the pairs that experiments show, how many check the voters instead: one version against itself,
# a pair judged before with its sides swapped, a clip against itself degraded.
CHECK_SAME = env.float("CHECK_SAME", default=0.04)
CHECK_REPEAT = env.float("CHECK_REPEAT", default=0.04)
CHECK_GOLD = env.float("CHECK_GOLD", default=0.06)
# Verdicts for pipelines: where the site is reached, what signs webhooks, whether they may go to
# private addresses, and what signs snapshots (64 hexadecimal digits; else made of SECRET_KEY).
SITE_ADDRESS = env.str("SITE_ADDRESS", default="").rstrip("/")
WEBHOOK_SECRET = env.str("WEBHOOK_SECRET", default="")
WEBHOOK_PRIVATE = env.bool("WEBHOOK_PRIVATE", default=False)
WEBHOOK_TIMEOUT_SECONDS = env.float("WEBHOOK_TIMEOUT_SECONDS", default=10.0)
SNAPSHOT_KEY = env.str("SNAPSHOT_KEY", default="")
# Clips made elsewhere: what an operator may send at once.
UPLOAD_MB_AT_MOST = env.int("UPLOAD_MB_AT_MOST", default=2000)
DATA_UPLOAD_MAX_NUMBER_FILES = UPLOAD_FILES_AT_MOST = env.int("UPLOAD_FILES_AT_MOST", default=500)


def storage(url: str) -> dict[str, Any]:
    """`file:///path` or `s3://bucket/prefix?endpoint_url=…&region_name=…` as Django's STORAGES."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        options = {
            "bucket_name": parts.netloc,
            "location": parts.path.strip("/"),
            **dict(parse_qsl(parts.query)),
        }
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    if parts.scheme != "file" or not parts.path:
        raise ImproperlyConfigured(
            f"MEDIA_STORAGE is “{url}”: set it to file:///a/folder or s3://bucket/prefix."
        )
    return {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": parts.path},
    }


# Where clips are kept. No address leads there: the site hands them out battle by battle.
MEDIA_STORAGE = env.str("MEDIA_STORAGE", default=f"file://{BASE_DIR / '.local' / 'media'}")
STORAGES = {
    "default": storage(MEDIA_STORAGE),
    "staticfiles": {"BACKEND": "arena.staticfiles.Storage"},
}
# Where workers make their files before these are stored; swept of what dead workers left.
SCRATCH = env.str("SCRATCH", default=str(BASE_DIR / ".local" / "scratch"))
# Where refits keep their copy of the ledger's votes; it can be deleted at any time.
LEDGER_COPY = env.str("LEDGER_COPY", default=str(BASE_DIR / ".local" / "ledger-copy"))
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = Path(env.str("STATIC_ROOT", default=str(BASE_DIR / ".local" / "static")))
if DEBUG or DEMO:  # straight from static/, nothing to collect
    STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    WHITENOISE_USE_FINDERS = True
    WHITENOISE_AUTOREFRESH = True  # a file that changed under a running site is sent whole

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

SECURE = not (DEBUG or DEMO)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=SECURE)
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=365 * 24 * 3600 if SECURE else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if env.bool("BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}

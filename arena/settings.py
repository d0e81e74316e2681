"""Settings. Everything that differs between a laptop and a cluster comes from the environment.

docs/operations.md lists the variables. What is missing or does not answer is reported by
`arena/checks.py` as a sentence that says what to set.
"""

from datetime import timedelta
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
    "arena.apps.OperatorsAdmin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "generation",
    "arena",
    "ratings",
]
MIDDLEWARE = [
    "arena.probes.answer_probes",  # before anything that looks at the host or the scheme
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "arena.middleware.content_security_policy",
    "arena.middleware.api_errors_as_json",
    "arena.middleware.utf8_alone",
    "arena.middleware.unreachable_database_as_503",
    "arena.middleware.refuse_nul",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
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
                "arena.context_processors.site",
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
# One queue for each kind of work, so that nothing short waits behind long work. Every task is here.
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_TASK_ROUTES = {
    task: {"queue": queue}
    for queue, tasks in {
        "control": (
            "arena.tasks.free_all_excluded_slots",
            "arena.tasks.free_excluded_slots",
            "arena.tasks.look_at_experiments",
            "arena.tasks.sweep_visitors",
            "generation.tasks.wake_hosted",
            "generation.tasks.wake_importers",
            "generation.tasks.wake_workers",
            "ratings.tasks.assess_changed",
            "ratings.tasks.assess_experiment",
            "ratings.tasks.compute_plans",
            "ratings.tasks.send_verdicts",
            "ratings.tasks.sweep_plans",
        ),
        "boards": (
            "ratings.tasks.refit_changed",
            "ratings.tasks.thin_leaderboards",
            "ratings.tasks.write_robustness_reports",
        ),
        "media": (
            "arena.tasks.make_experiment_checks",
            "generation.tasks.import_waiting",
            "generation.tasks.sweep_media",
            "generation.tasks.withdraw_lost_clips",
        ),
        "gpu": ("generation.tasks.render_waiting",),
        "hosted": ("generation.tasks.poll_hosted", "generation.tasks.submit_hosted"),
    }.items()
    for task in tasks
}
# Seconds between two messages. Beat sends none while the last of the same task still waits for a
# worker, so that messages neither pile up nor have to expire.
CELERY_BEAT_SCHEDULER = "arena.beat:OneWaitingScheduler"
CELERY_BEAT_SCHEDULE = {
    task: {"task": task, "schedule": seconds}
    for task, seconds in {
        "generation.tasks.wake_workers": 10.0,
        "generation.tasks.wake_importers": 10.0,
        "generation.tasks.wake_hosted": 10.0,
        "ratings.tasks.assess_changed": 10.0,
        "ratings.tasks.compute_plans": 10.0,
        "ratings.tasks.send_verdicts": 10.0,
        "ratings.tasks.refit_changed": 10.0,
        "arena.tasks.look_at_experiments": 10.0,
        "arena.tasks.free_excluded_slots": 30.0,
        "arena.tasks.make_experiment_checks": 30.0,
        "ratings.tasks.write_robustness_reports": 60.0,
        "arena.tasks.free_all_excluded_slots": 600.0,
        "arena.tasks.sweep_visitors": 3600.0,
        "generation.tasks.sweep_media": 3600.0,
        "ratings.tasks.sweep_plans": 3600.0,
        "ratings.tasks.thin_leaderboards": 3600.0,
        "generation.tasks.withdraw_lost_clips": 24 * 3600.0,
    }.items()
}

# A worker that stops its heartbeat for this long is taken for dead and its clip goes to another.
LEASE_SECONDS = env.float("LEASE_SECONDS", default=45.0)
RENDER_ATTEMPTS = env.int("RENDER_ATTEMPTS", default=3)
# Clips ordered from paid services: how many are out at once, how long an answer may take, and when
# an order that is not done is asked after no more.
HOSTED_JOBS_AT_MOST = env.int("HOSTED_JOBS_AT_MOST", default=20)
HOSTED_TIMEOUT_SECONDS = env.float("HOSTED_TIMEOUT_SECONDS", default=30.0)
HOSTED_SECONDS_AT_MOST = env.float("HOSTED_SECONDS_AT_MOST", default=7200.0)
# Files of paid services are fetched from public addresses alone. Services of one's own network, and
# tests, set this.
HOSTED_PRIVATE = env.bool("HOSTED_PRIVATE", default=False)
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
        return {"BACKEND": "generation.media.bucket.MediaBucket", "OPTIONS": options}
    if parts.scheme != "file" or not parts.path:
        raise ImproperlyConfigured(
            f"MEDIA_STORAGE is “{url}”: set it to file:///a/folder or s3://bucket/prefix."
        )
    return {
        "BACKEND": "generation.media.folder.MediaFolder",
        "OPTIONS": {"location": parts.path},
    }


# Where clips are kept. No address leads there: the site hands them out battle by battle.
MEDIA_STORAGE = env.str("MEDIA_STORAGE", default=f"file://{BASE_DIR / '.local' / 'media'}")
STORAGES = {
    "default": storage(MEDIA_STORAGE),
    "staticfiles": {"BACKEND": "arena.staticfiles.Storage"},
}
# Address of the proxy's internal location that sends files of the media folder, or empty: the site
# sends them itself.
ACCEL_REDIRECT = env.str("ACCEL_REDIRECT", default="")
# Where workers make their files before these are stored; swept of what dead workers left.
SCRATCH = env.str("SCRATCH", default=str(BASE_DIR / ".local" / "scratch"))
# With fewer bytes free in the media folder or in SCRATCH what writes waits: a few workers at a
# minute of 4K each need so much.
MEDIA_MIN_FREE = env.int("MEDIA_MIN_FREE", default=10**8 if DEMO else 10**9)
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

# Operators: passwords, failed sign-ins (arena/operators.py), codes, and how long a session lasts.
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in {
        "UserAttributeSimilarityValidator": {},
        "MinimumLengthValidator": {"min_length": 12},
        "CommonPasswordValidator": {},
        "NumericPasswordValidator": {},
    }.items()
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: it refuses whoever failed too often
    "django.contrib.auth.backends.ModelBackend",
]
SESSION_COOKIE_AGE = 12 * 3600  # s
# Unset is off, and `check --deploy` says so; 0 is off by decision.
TOTP_IS_DECIDED = env.str("REQUIRE_TOTP", default="") != ""
REQUIRE_TOTP = TOTP_IS_DECIDED and env.bool("REQUIRE_TOTP")
OTP_ADMIN_HIDE_SENSITIVE_DATA = True
OTP_TOTP_ISSUER = f"Photofinish {urlsplit(SITE_ADDRESS).hostname or ''}".strip()
# REMOTE_ADDR, or the header in which the proxy says whose request it is.
CLIENT_ADDRESS = env.str("CLIENT_ADDRESS", default="REMOTE_ADDR")
AXES_CLIENT_IP_CALLABLE = "arena.operators.client_address"
AXES_FAILURE_LIMIT = env.int("SIGN_IN_FAILURES", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.float("SIGN_IN_PAUSE_MINUTES", default=15.0))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "arena.operators.locked_out"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # the page says when to try again
AXES_RESET_ON_SUCCESS = True
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "code"]
# The log has them; what the tables hold of a failure is deleted after the pause.
AXES_DISABLE_ACCESS_LOG, AXES_ENABLE_ADMIN, AXES_VERBOSE = True, False, False

SECURE = not (DEBUG or DEMO)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=SECURE)
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=365 * 24 * 3600 if SECURE else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
# Browsers' own lists take months to leave, with all subdomains: whoever wants that says so.
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=False)
SILENCED_SYSTEM_CHECKS = ["security.W021"]  # it asks for just that
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
    "loggers": {"axes": {"level": "ERROR"}},  # arena.operators says it in one line
}

"""The Celery application. Messages only wake workers up: PostgreSQL holds all that must last."""

import logging
import os

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")

app = Celery("photofinish")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

log = logging.getLogger(__name__)


def wake(task: str, *arguments: str) -> None:
    """Have a worker run this task now and not at beat's next round.

    Nothing is lost if the broker is away: what there is to do stands in PostgreSQL. It is asked
    first, as Celery would try for six seconds, and somebody waits for the page.
    """
    try:
        once = Retry(NoBackoff(), retries=0)
        with Redis.from_url(app.conf.broker_url, retry=once, socket_connect_timeout=1) as broker:
            broker.ping()
        app.send_task(task, arguments, retry=False)
    except (RedisError, OperationalError):
        log.warning("The broker is away: %s runs at beat's next round", task)

"""Celery messages: how many of a task wait for a worker, and how long a task may take."""

import json

from django.conf import settings
from redis import Redis

SECONDS_TO_STOP = 30.0  # from the soft limit, which a task may answer, to the hard one


def count_waiting(task: str) -> int:
    """How many messages of this task no worker has taken yet."""
    queue = settings.CELERY_TASK_ROUTES[task]["queue"]
    timeout = settings.CELERY_BROKER_TRANSPORT_OPTIONS["socket_timeout"]
    with Redis.from_url(settings.CELERY_BROKER_URL, socket_timeout=timeout) as broker:
        messages = broker.lrange(queue, 0, -1)
    return sum(json.loads(message)["headers"]["task"] == task for message in messages)


def limited_to(seconds: float) -> dict[str, float]:
    """A task's limits: after so many seconds it is told to stop, a little later it is killed."""
    return {"soft_time_limit": seconds, "time_limit": seconds + SECONDS_TO_STOP}

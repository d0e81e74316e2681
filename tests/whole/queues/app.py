"""The site's Celery app, made quick and busy: for the workers of test_queues.py.

Beat's seconds are tenths here, and `occupy` is work that takes long.
"""

import time

from arena.celery import app

FASTER = 10.0  # times

for entry in app.conf.beat_schedule.values():
    entry["schedule"] /= FASTER


@app.task(name="tests.occupy", soft_time_limit=60, time_limit=90)
def occupy(seconds: float) -> None:
    """Hold a worker, as an import, a robustness report or a clip's render does."""
    time.sleep(seconds)

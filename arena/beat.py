"""When beat sends a periodic task, and when it does not."""

from typing import Any

from celery.beat import PersistentScheduler

from generation.messages import count_waiting


class OneWaitingScheduler(PersistentScheduler):
    """A task whose last message still waits for a worker is not sent again.

    So a message needs no time at which it expires: one that comes late behind long work is done
    late, and not forgotten.
    """

    def apply_async(self, entry: Any, *args: Any, **options: Any) -> Any:
        return None if count_waiting(entry.task) else super().apply_async(entry, *args, **options)

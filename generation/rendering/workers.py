"""What each process of a GPU worker says of itself, for the page of progress.

A thread writes it every few seconds, whether or not there is work, so that a worker that is idle
and one that is dead look different.
"""

import logging
import os
import platform
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app
from celery.signals import worker_process_init, worker_process_shutdown
from django.db import connection
from django.db.models.functions import Now

from generation.models import Worker

log = logging.getLogger(__name__)

QUEUE = "gpu"
BEAT_SECONDS = 10.0
FORGOTTEN_AFTER = timedelta(days=1)
# Held while a report is written; once it has ended, a process reports no more.
_reporting = threading.Lock()
_ended = threading.Event()


@worker_process_init.connect
def begin(sender: str, **_: Any) -> None:
    """In the process that renders, once it has been forked; `sender` is the worker's name."""
    if QUEUE not in current_app.amqp.queues.consume_from:
        return
    threading.Thread(target=_report_forever, args=(sender,), daemon=True).start()


@worker_process_shutdown.connect
def end(sender: str, **_: Any) -> None:
    """A worker that ended in peace is no longer listed."""
    if QUEUE in current_app.amqp.queues.consume_from:
        _ended.set()
        with _reporting:
            Worker.objects.filter(name=sender).delete()


def _report_forever(name: str) -> None:
    while not _ended.is_set():
        try:
            with _reporting:
                if not _ended.is_set():
                    report(name)
        except Exception:  # the database restarts, torch is being imported: again at the next beat
            log.debug("%s: no report", name, exc_info=True)
        finally:
            connection.close()
        _ended.wait(BEAT_SECONDS)


def report(name: str) -> None:
    facts = {"hardware": hardware(gpu=True), "gpu_used": None, "gpu_total": None}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        facts |= {"gpu_used": total - free, "gpu_total": total}
    Worker.objects.update_or_create(name=name, defaults={**facts, "seen_at": Now()})


def forget_silent() -> int:
    """Workers that have said nothing for a day are listed no more."""
    return Worker.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()[0]


def hardware(gpu: bool) -> str:
    """What renders here, by name: for a backend that uses one the GPU, else the processor."""
    torch = sys.modules.get("torch")
    if gpu and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"

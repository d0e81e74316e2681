"""The Celery application. Messages only wake workers up: PostgreSQL holds all that must last."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")

app = Celery("photofinish")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

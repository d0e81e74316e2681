"""What supervisors, load balancers and the demo ask: is it alive, is it ready, is there work.

Probes come by address, over plain HTTP and often, so the first two are answered before anything
else looks at the request: host names, the redirect to HTTPS, sessions. Nobody can make the site
work by asking often: what the database says is asked once in KEPT_SECONDS.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from psycopg_pool import PoolTimeout

from arena.middleware import AWAY, Handler
from generation.catalogue.categories import Category
from generation.models import ClipState

KEPT_SECONDS = 5.0
CLIP_STATES = "SELECT state, count(*) FROM generation_clip GROUP BY state"
STORAGE_PAUSES = "SELECT count(*) FROM generation_storagepause WHERE ended_at IS NULL"
# Every two of the versions whose clips meet; each clip is read once, however many versions.
VOTABLE_CLIP_PAIRS = """
    SELECT category, sum(clips * (clips - 1) / 2)::bigint
    FROM (
        SELECT category, count(*) AS clips
        FROM generation_clip clip JOIN generation_version version ON version.id = clip.version_id
        WHERE clip.state = 'ready' AND version.state = 'active'
        GROUP BY category, prompt_id, seed_slot, profile
    ) AS met
    GROUP BY category
"""


class Kept:
    """An answer that is asked for again once it is old; while one asks, the old one stands."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask, self._lock = ask, Lock()
        self._answer: Any = None
        self._until = 0.0

    def __call__(self) -> Any:
        if time.monotonic() >= self._until and self._lock.acquire(blocking=self._answer is None):
            try:
                if time.monotonic() >= self._until:
                    self._answer = self._ask()
                    self._until = time.monotonic() + KEPT_SECONDS
            finally:
                self._lock.release()
        return self._answer

    def forget(self) -> None:
        self._answer, self._until = None, 0.0


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (Error, PoolTimeout):
        return False
    return True


def _counts() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(CLIP_STATES)
        states = dict(cursor.fetchall())
        cursor.execute(VOTABLE_CLIP_PAIRS)
        votable = dict(cursor.fetchall())
        cursor.execute(STORAGE_PAUSES)
        (paused,) = cursor.fetchone()
    rendering = states.get(ClipState.RENDERING, 0)
    return {
        "ok": True,
        "paused": paused,
        "votable": {value: votable.get(value, 0) for value in Category.values},
        "clips": {
            "ready": states.get(ClipState.READY, 0),
            "waiting": states.get(ClipState.WAITING, 0) + rendering,
            "failed": states.get(ClipState.FAILED, 0),
        },
    }


readiness, counts = Kept(_database_answers), Kept(_counts)


def answer_probes(get_response: Handler) -> Handler:
    """The first middleware: /livez without the database, /readyz with it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or request.path not in ("/livez", "/readyz"):
            return get_response(request)
        if request.path == "/livez" or readiness():
            response = JsonResponse({"ok": True})
        else:
            response = JsonResponse({"ok": False, "error": AWAY}, status=503)
        response.headers["Cache-Control"] = "no-store"
        return response

    return middleware


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """For people and the demo: is there something to vote on, and how far are the clips."""
    return JsonResponse(counts())

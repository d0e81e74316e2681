"""A claimed clip is rendered, encoded and published."""

import logging
import math
import time
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db.models import F

from generation.backends import CannotRender
from generation.backends.registry import load_renderer
from generation.media.masters import write_master
from generation.media.profile import EncodingError
from generation.media.scratch import scratch_folder
from generation.media.storage import StorageRefuses
from generation.models import Clip, ClipState
from generation.rendering.claims import give_up, task_key_of
from generation.rendering.leases import Heartbeat, LeaseLost, hand_back, postpone, release
from generation.rendering.model_cache import WARM
from generation.rendering.publish import encode_clip, publish
from generation.rendering.queue import request_of
from generation.rendering.workers import hardware

log = logging.getLogger(__name__)

SIGNAL_SECONDS = 2.0  # in which a signal that a render takes too long has come, if it comes


class RenderHeartbeat(Heartbeat):
    """Carries the step that is being rendered, and ends a render that takes too long."""

    def __init__(self, clip: Clip, seconds_at_most: float = math.inf) -> None:
        super().__init__(clip)
        self.seconds_at_most = seconds_at_most
        self.progress = (0, 0)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def values(self) -> dict[str, object]:
        step, steps = self.progress
        return {"step": step, "steps": steps}

    def step(self, step: int, steps: int) -> None:
        """Called by the backend; stops a render whose lease is gone, or whose time is up.

        Celery raises SoftTimeLimitExceeded wherever the process is, once. Python drops what is
        raised inside a destructor, so a later step raises it again.
        """
        self.progress = (step, steps)
        self.check()
        if self.seconds > self.seconds_at_most + SIGNAL_SECONDS:
            raise SoftTimeLimitExceeded


def render_claimed(clip: Clip, seconds_at_most: float = math.inf) -> bool:
    """Render, encode and publish a claimed clip. True when it is ready afterwards.

    A failure is kept in words on the clip: for good if the backend says that it can't, or if it
    takes too long, to be tried again up to the cap otherwise.
    """
    heartbeat = RenderHeartbeat(clip, seconds_at_most)
    try:
        with heartbeat, scratch_folder(f"{clip.pk}-{clip.fence}") as folder:
            _render_into(clip, heartbeat, folder)
        return True
    except LeaseLost as error:
        log.warning("%s", error)
        return False
    except SystemExit:  # told to end at once, by an operator or because it did not stop in time
        if heartbeat.seconds < settings.RENDER_SECONDS_AT_MOST:
            hand_back(clip, state=ClipState.WAITING)
        else:
            give_up(clip, _too_long(heartbeat))
        raise
    except SoftTimeLimitExceeded:
        give_up(clip, _too_long(heartbeat))
        return False
    except StorageRefuses as error:
        log.warning("clip %s waits: %s", clip.pk, error)
        release(clip, state=ClipState.WAITING, error=str(error), attempts=F("attempts") - 1)
        return False
    except (CannotRender, EncodingError) as error:
        log.warning("clip %s failed: %s", clip.pk, error)
        give_up(clip, str(error))
        return False
    except Exception as error:
        log.exception("clip %s: attempt %s failed", clip.pk, clip.attempts)
        reason = f"{type(error).__name__}: {error}"
        if clip.attempts >= settings.RENDER_ATTEMPTS:
            give_up(clip, reason)
        else:
            # What is not the clip's own fault, such as a full disk, gets time to pass: 15 s, 45 s.
            postpone(clip, 5 * 3**clip.attempts, state=ClipState.WAITING, error=reason)
        return False


def _too_long(heartbeat: RenderHeartbeat) -> str:
    step, steps = heartbeat.progress
    where = f"at step {step} of {steps}" if steps else "before its first step"
    return (
        f"It was stopped {where} after {heartbeat.seconds:.0f} s: raise RENDER_SECONDS_AT_MOST, or "
        "render it on faster hardware."
    )


def _render_into(clip: Clip, heartbeat: RenderHeartbeat, folder: Path) -> None:
    version = clip.version
    request = request_of(clip.prompt, clip.category, clip.seed)
    started = time.perf_counter()
    with WARM.rendering(task_key_of(clip)) as measured:
        renderer = load_renderer(version.backend)
        raw = renderer.render(version.settings, request, heartbeat.step)
        rendered = time.perf_counter()
    write_master(raw, folder / "master.mkv")
    files = encode_clip(folder / "master.mkv", folder, clip.prompt, clip.category)
    on_gpu = measured.gpu_peak is not None
    step, steps = heartbeat.progress
    publish(
        clip,
        files,
        render_seconds=rendered - started,
        encode_seconds=time.perf_counter() - rendered,
        hardware=hardware(gpu=renderer.GPU),
        measured={
            "step": step,
            "steps": steps,
            "gpu_seconds": rendered - started - measured.loading if on_gpu else None,
            "gpu_peak_bytes": measured.gpu_peak,
        },
    )

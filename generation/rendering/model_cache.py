"""Models stay loaded between clips, as many as fit; the least recently used goes first.

One process renders on one GPU, or on the processor, and holds its models in `WARM`. A backend asks
it for a model with `model`, and renders inside `within_memory`. What a model takes is not known
before it was used: its weights' size stands in at first, then the most that it took so far. If
that was too little the memory runs out once, and everything else that is loaded makes room.

Loading costs time that renders nothing, so a worker stays with what is loaded. So that the others
wait no longer than they must, it does so for a turn, and then takes what it has not served for
longest. A turn lasts LOADING times as long as the last load did, which keeps loading below a
twentieth of the time, and LONGEST_TURN at most. With small models that is seconds: then clips are
made nearly in the order of their queue.
"""

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from generation.backends import CannotRender

T = TypeVar("T")

log = logging.getLogger(__name__)

LOADING = 20
LONGEST_TURN = 1800.0  # s; nothing waits longer than this for each other model
# Left free in RAM: the frames of a long clip as floats, and their encoding.
RAM_RESERVE = 2 << 30


class OutOfMemory(CannotRender):
    """The clip does not fit into this GPU, whatever is tried."""


@dataclass
class LoadedModel:
    """A model, and the GPU memory that it holds while it does nothing."""

    model: Any
    gpu: int


@dataclass
class Need:
    """The most that a model takes, in bytes, its work included."""

    ram: int
    gpu: int


@dataclass
class Measured:
    """What rendering one clip took apart from the clip."""

    loading: float = 0.0  # s
    gpu_peak: int | None = None  # bytes; of the clip's model and work alone
    keys: set[Hashable] = field(default_factory=set)


class Warm:
    """The models of this process, the one used last at the end."""

    def __init__(self) -> None:
        self._models: dict[Hashable, LoadedModel] = {}
        self._needs: dict[Hashable, Need] = {}
        self._keys_of: dict[str, set[Hashable]] = {}  # by task's key; the latest last
        self._now = Measured()
        self._turn_ends = 0.0

    # --- for the backends ------------------------------------------------------------------------

    def model(
        self, key: Hashable, load: Callable[[], T], *, size: Callable[[], int], on_gpu: bool
    ) -> T:
        """The model of this key, loaded if it is not; others make room for it and its work.

        `size` tells the bytes of its weights; `on_gpu` is whether they stay on the GPU.
        """
        self._now.keys.add(key)
        started = time.monotonic()
        if key not in self._needs:
            weights = size()
            self._needs[key] = Need(weights, weights if on_gpu else 0)
        while (others := self._others(key)) and not self._fits(key):
            self._drop(others[0])
        loaded = self._models.pop(key, None) or self._load(key, load, started)
        self._models[key] = loaded  # at the end
        return loaded.model

    def within_memory(self, what: str, render: Callable[[bool], T], *, full: type[Exception]) -> T:
        """Render; when the GPU's memory runs out, make room and try again, then frugally.

        1. as the version says  2. the same, with nothing else loaded, if anything was
        3. loaded again and told to be frugal, as offload and tiles are  4. OutOfMemory, in words

        `full` is what the library raises when the memory runs out.
        """
        while True:
            try:
                return render(False)
            except full:
                pass  # here it ends: its traceback would keep the tensors of the attempt alive
            if not (others := [key for key in self._models if key not in self._now.keys]):
                break
            log.warning("%s ran out of GPU memory: trying again with nothing else loaded", what)
            for key in others:
                self._drop(key)
        log.warning("%s ran out of GPU memory: trying once more, slowly, with less", what)
        self.clear()
        try:
            return render(True)
        except full:
            pass
        self.clear()
        raise OutOfMemory(
            f"{what} runs out of GPU memory even alone and as frugal as it can be: render it on a "
            "GPU with more memory."
        )

    def clear(self) -> None:
        """Drop all models and give their memory back."""
        self._models.clear()
        _collect()

    # --- for the worker --------------------------------------------------------------------------

    @contextmanager
    def rendering(self, task_key: str) -> Iterator[Measured]:
        """Measure a render, and remember what this task of a version needs loaded."""
        self._now = measured = Measured()
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()
        try:
            yield measured
        finally:
            self._keys_of.pop(task_key, None)
            self._keys_of[task_key] = measured.keys  # at the end
        if cuda := _cuda():
            cuda.synchronize()
            others = sum(self._models[key].gpu for key in self._others(*measured.keys))
            # Nothing of it worked on the GPU if no more was in use than what the others hold.
            measured.gpu_peak = max(0, cuda.max_memory_allocated() - others) or None
            for key in measured.keys & set(self._models):
                self._needs[key].gpu = max(self._needs[key].gpu, measured.gpu_peak or 0)

    @property
    def served(self) -> list[str]:
        """The keys of the tasks that were rendered here, the one that was longest ago first."""
        return list(self._keys_of)

    @property
    def warm(self) -> list[str]:
        """Those of them whose models are loaded."""
        return [key for key, models in self._keys_of.items() if models <= set(self._models)]

    @property
    def in_turn(self) -> bool:
        """Whether it is too early to load another model."""
        return time.monotonic() < self._turn_ends

    # ---------------------------------------------------------------------------------------------

    def _others(self, *keys: Hashable) -> list[Hashable]:
        return [key for key in self._models if key not in keys]

    def _fits(self, key: Hashable) -> bool:
        need, loaded = self._needs[key], self._models.get(key)
        if loaded is None and _free_ram() < need.ram + RAM_RESERVE:
            return False
        return not (cuda := _cuda()) or _free_gpu(cuda) >= need.gpu - (loaded.gpu if loaded else 0)

    def _load(self, key: Hashable, load: Callable[[], Any], started: float) -> LoadedModel:
        log.info("loading a model: %s", key)
        ram, gpu = _resident(), _allocated()
        model = load()
        seconds = time.monotonic() - started
        self._now.loading += seconds
        self._turn_ends = time.monotonic() + min(LOADING * seconds, LONGEST_TURN)
        need = self._needs[key]
        need.ram = max(need.ram, _resident() - ram)
        return LoadedModel(model, max(0, _allocated() - gpu))

    def _drop(self, key: Hashable) -> None:
        log.info("dropping a model to make room: %s", key)
        del self._models[key]
        _collect()


WARM = Warm()


def _collect() -> None:
    gc.collect()  # offload hooks and their models refer to each other
    if cuda := _cuda():
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()  # what made room is no part of what comes after


def _cuda() -> Any:
    """torch.cuda where there is a GPU and torch is imported already, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _allocated() -> int:
    cuda = _cuda()
    return int(cuda.memory_allocated()) if cuda else 0


def _free_gpu(cuda: Any) -> int:
    """Free on the device, and what this process has reserved and does not use."""
    return int(cuda.mem_get_info()[0] + cuda.memory_reserved() - cuda.memory_allocated())


def _resident() -> int:
    """RAM of this process, in bytes; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _free_ram() -> int:
    """RAM that can be had, within the container's limit if there is one; 0 if nobody knows."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not version 2, or “max”
        return free
    return min(free, limit - used + int(told.get("inactive_file", 0)))

"""What every training command shares: steps, metrics, checkpoints, releases."""

import argparse
import csv
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from generation.backends.colt.config import Config
from generation.backends.colt.weights import save

M = TypeVar("M", bound=nn.Module)

KEEP_EVERY = 100  # steps between two checkpoints


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    return torch.autocast(where.type, torch.bfloat16)


def compiled(model: M, wanted: bool) -> M:
    """The model, compiled if that is wanted: that takes minutes, before the first step."""
    return cast(M, torch.compile(model)) if wanted else model


def arguments(description: str | None, **defaults: int) -> argparse.ArgumentParser:
    """A parser with what all commands take: --out, --seed, --compile and these numbers."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else "")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser


class Run:
    """One training run in one folder: `last.pt` to go on from, `metrics.csv`, released weights.

    Random numbers are drawn from seed and step at each step, so a run that was stopped and
    resumed draws the same ones as a run that was not. `parts` is all that has to be remembered.
    """

    def __init__(
        self, out: Path, steps: int, columns: Iterable[str], *, seed: int = 1, **parts: Any
    ) -> None:
        self.out, self.steps, self.seed, self.parts = out, steps, seed, parts
        self.columns, self.step = list(columns), 0
        out.mkdir(parents=True, exist_ok=True)
        if (out / "last.pt").exists():
            state = torch.load(out / "last.pt", weights_only=True)
            self.step = state.pop("step")
            for name, part in parts.items():
                part.load_state_dict(state[name])
        text = (TextColumn("step"), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*text, TimeRemainingColumn())

    def __enter__(self) -> "Run":
        path = self.out / "metrics.csv"
        fresh = not path.exists()
        self._log = path.open("a", newline="", buffering=1)
        self._metrics = csv.writer(self._log)
        if fresh:
            self._metrics.writerow(["step", "seconds", *self.columns])
        self._bar.start()
        self._task = self._bar.add_task("", total=self.steps, completed=self.step)
        self._clock = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._log.close()

    def more(self) -> bool:
        """Goes on to the next step; False once all are done."""
        if self.step >= self.steps:
            return False
        self.step += 1
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        return True

    def pace(self, optimiser: torch.optim.Optimizer, rate: float, *, warm: int, down: int) -> None:
        """Learning rate of this step: up over `warm` steps, flat, straight down over `down`."""
        left = (self.steps - self.step + 1) / max(down, 1)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, self.step / warm, left)

    def learn(self, loss: Tensor, model: nn.Module, *optimisers: torch.optim.Optimizer) -> None:
        """One update from the loss, with gradients clipped to norm 1."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def row(self, **values: Tensor) -> None:
        """Ends the step: metrics down, and from time to time a checkpoint."""
        seconds, self._clock = time.perf_counter() - self._clock, time.perf_counter()
        numbers = [float(values[name].detach()) for name in self.columns]
        self._metrics.writerow([self.step, f"{seconds:.3f}", *(f"{n:.5f}" for n in numbers)])
        told = " ".join(f"{name} {n:.4f}" for name, n in zip(self.columns, numbers, strict=True))
        self._bar.update(self._task, completed=self.step, description=f"{told} {seconds:.2f} s")
        if self.step % KEEP_EVERY == 0 or self.step == self.steps:
            self._log.flush()
            state = {name: part.state_dict() for name, part in self.parts.items()}
            torch.save({"step": self.step, **state}, self.out / "last.tmp")
            (self.out / "last.tmp").replace(self.out / "last.pt")

    def release(self, name: str, parts: Mapping[str, nn.Module], config: Config) -> Path:
        """Writes weights that a version can use, with the step and the seed they come from."""
        path = self.out / name
        save(parts, path, config, {"step": str(self.step), "seed": str(self.seed)})
        return path

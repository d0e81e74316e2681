"""Trains Colt on clips of the scene renderer.

    python -m generation.colt.train --out runs/base --steps 6000

Resumes from the last checkpoint in the output folder, writes metrics.csv as it goes, and leaves
`step-N.safetensors` at each step named with --release.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from generation.colt.config import EMPTY, Config
from generation.colt.mel import to_mel
from generation.colt.model import Colt
from generation.colt.sample import encode_words, save
from generation.scenes.grammar import draw_scene
from generation.scenes.renderer import plan, render_frames, render_sound

GIVEN = 0.3  # share of clips trained with their first frame given: one checkpoint does t2v and i2v
WORDLESS = 0.1  # share trained without words, for classifier-free guidance
NEAREST = 0.05  # 1 - level is not taken below this, so that the loss weight stays finite


def make_clips(config: Config, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [N,3,F,H,W], float16 mel [N,columns,bins] and words int64 [N,text_length]."""
    rng = np.random.default_rng(seed)
    video = torch.empty(count, 3, config.frames, config.size, config.size, dtype=torch.uint8)
    columns = config.frames * config.mel_per_frame
    audio = torch.empty(count, columns, config.mel_bins, dtype=torch.float16)
    words = torch.empty(count, config.text_length, dtype=torch.int64)
    for index in range(count):
        scene = draw_scene(rng)
        layout, motion = (int(n) for n in rng.integers(2**31, size=2))
        tracks = plan(scene, layout, motion, config.seconds)
        frames = render_frames(
            scene, tracks, size=config.size, fps=config.fps, seconds=config.seconds
        )
        video[index] = torch.from_numpy(frames).permute(3, 0, 1, 2)
        sound = torch.from_numpy(render_sound(tracks, config.seconds)[:, 0])
        audio[index] = to_mel(sound, config).half()
        words[index] = encode_words(str(scene), config)[0]
    return video, audio, words


def loss_of(
    model: Colt, video: Tensor, audio: Tensor, words: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Velocity-weighted x-prediction losses of picture and sound (arXiv 2511.13720)."""
    batch = video.shape[0]
    # Logit-normal levels: most of the work lies between noise and nearly clean (Esser et al. 2024).
    level = torch.sigmoid(torch.randn(batch, generator=generator) * 1.0 - 0.4)
    given = torch.rand(batch, generator=generator) < GIVEN
    wordless = torch.rand(batch, generator=generator) < WORDLESS
    words = torch.where(wordless[:, None], torch.full_like(words, EMPTY), words)
    v, a = level.view(-1, 1, 1, 1, 1), level.view(-1, 1, 1)
    noisy_video = v * video + (1 - v) * torch.randn(video.shape, generator=generator)
    noisy_audio = a * audio + (1 - a) * torch.randn(audio.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        guess_video, guess_audio = model(
            noisy_video, noisy_audio, level, words, video[:, :, 0], given
        )
    weight = 1 / (1 - level).clamp_min(NEAREST) ** 2
    picture = ((guess_video.float() - video).square().mean((1, 2, 3, 4)) * weight).mean()
    sound = ((guess_audio.float() - audio).square().mean((1, 2)) * weight).mean()
    return picture, sound


def train(out: Path, steps: int, batch: int, clips: int, seed: int, release: list[int]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config = Config()
    torch.manual_seed(seed)
    model, average = Colt(config), Colt(config)
    average.load_state_dict(model.state_dict())
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n and "shift" not in n
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    # Muon for the matrices inside the blocks, AdamW for all else (Jordan 2024).
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    generator = torch.Generator().manual_seed(seed)
    begin, last = 0, out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        begin = state["step"]
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        generator.set_state(state["generator"])
    print(f"making {clips} clips", flush=True)
    videos, audios, sentences = make_clips(config, clips, seed)
    run = cast(Colt, torch.compile(model))
    log = (out / "metrics.csv").open("a", newline="")
    metrics = csv.writer(log)
    columns = (TextColumn("step"), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn()) as bar:
        row = bar.add_task("", total=steps, completed=begin)
        clock = time.perf_counter()
        for step in range(begin + 1, steps + 1):
            warm, left = min(1.0, step / 200), (steps - step) / steps
            rate = 2e-3 * warm * min(1.0, left / 0.4 + 0.01)  # straight down over the last 40 %
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate
            chosen_clips = torch.randint(clips, (batch,), generator=generator)
            video = videos[chosen_clips].float() / 127.5 - 1
            audio = audios[chosen_clips].float()
            picture, sound = loss_of(run, video, audio, sentences[chosen_clips], generator)
            (picture + sound).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                decay = min(0.998, step / (step + 20))
                for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
            pace = time.perf_counter() - clock
            clock = time.perf_counter()
            metrics.writerow([step, f"{picture:.5f}", f"{sound:.5f}", f"{rate:.2e}", f"{pace:.3f}"])
            bar.update(row, completed=step, description=f"{picture:.4f} {sound:.4f} {pace:.2f} s")
            if step % 100 == 0 or step == steps or step in release:
                log.flush()
                state = {
                    "step": step,
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                    "generator": generator.get_state(),
                }
                torch.save(state, last.with_suffix(".tmp"))
                last.with_suffix(".tmp").replace(last)
            if step == steps or step in release:
                note = {"step": str(step), "seed": str(seed), "batch": str(batch)}
                save(average, out / f"step-{step}.safetensors", note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--clips", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--release", type=int, nargs="*", default=[])
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()

"""Distils the base model to a few steps without guidance: DMD2 (arXiv 2405.14867).

    python -m generation.backends.colt.distill --out runs/fast \\
        --base runs/base/step-20000.safetensors \\
        --clips-of runs/base

Three copies of the base: the teacher, frozen and guided; the student, which goes from noise to a
clip in a few steps; and a critic, which learns by flow matching what the student makes. Where the
critic and the teacher see different clean clips in the same noise, the difference is the direction
in which the student's clips become as likely as the teacher's. Student inputs are simulated: they
come from its own earlier steps, as in sampling.
"""

from pathlib import Path

import torch
from torch import Tensor

from generation.backends.colt.codec import Codec
from generation.backends.colt.latents import Clips, load_or_make
from generation.backends.colt.model import Colt
from generation.backends.colt.run import Run, arguments, autocast, compiled, device
from generation.backends.colt.sample import Guess, guided, schedule
from generation.backends.colt.train import (
    GIVEN,
    Average,
    batches,
    draw_level,
    noised,
    velocity_error,
)
from generation.backends.colt.weights import load, read_config

CRITIC_UPDATES = 4  # per update of the student (the two time-scale rule of DMD2)
STUDENT_RATE, CRITIC_RATE = 1e-4, 3e-4


def conditions(clips: Clips) -> tuple[Tensor, Tensor, Tensor]:
    """Words, first frames, and which clips are given theirs."""
    given = torch.rand(len(clips.words), device=clips.words.device) < GIVEN
    return clips.words, clips.first, given


@torch.no_grad()
def simulate(
    student: Colt, clips: Clips, steps: int, known: tuple[Tensor, ...]
) -> tuple[Guess, Tensor]:
    """What the student gets at a random step of its own sampling, and the level of that step."""
    now = (torch.randn_like(clips.video), torch.randn_like(clips.audio))
    levels = schedule(steps)
    last = int(torch.randint(steps, ()))
    for level, ahead in levels[:last]:
        with autocast(level.device):
            clean = student(*now, level.expand(len(clips.words)), *known)
        now = noised(clean[0].float(), clean[1].float(), ahead.expand(len(clips.words)))
    return now, levels[last][0]


def pull(made: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """A loss whose gradient by `made` is the normalised difference of the two scores."""
    dims = tuple(range(1, made.ndim))
    size = (made - real).abs().mean(dims, keepdim=True).clamp_min(1e-3)
    target = (made - (fake - real) / size).detach()
    return 0.5 * (made - target).square().mean()


def student_loss(
    student: Colt, critic: Colt, teacher: Colt, clips: Clips, steps: int, guidance: float
) -> tuple[Tensor, Guess, tuple[Tensor, ...]]:
    """Distribution matching loss of a batch, and the clips that it made under which conditions."""
    words, first, given = known = conditions(clips)
    now, level = simulate(student, clips, steps, known)
    with autocast(level.device):
        video, audio = student(*now, level.expand(len(words)), *known)
    made = (video.float(), audio.float())
    with torch.no_grad(), autocast(level.device):
        level = draw_level(len(words), level.device)
        noisy = noised(*made, level)
        fake = critic(*noisy, level, *known)
        real = guided(teacher, noisy, level, words, (first, given), guidance)
    loss = pull(made[0], real[0].float(), fake[0].float())
    loss = loss + pull(made[1], real[1].float(), fake[1].float())
    return loss, (made[0].detach(), made[1].detach()), known


def critic_loss(critic: Colt, made: Guess, known: tuple[Tensor, ...]) -> Tensor:
    """Flow matching on the student's clips."""
    level = draw_level(len(made[0]), made[0].device)
    with autocast(level.device):
        video, audio = critic(*noised(*made, level), level, *known)
    return velocity_error(video, made[0], level) + velocity_error(audio, made[1], level)


def distill(
    out: Path, base: Path, clips_of: Path, clips: int, updates: int, batch: int, steps: int,
    guidance: float, seed: int, compile: bool,
) -> None:  # fmt: skip
    config, where = read_config(base), device()
    coder = Codec(config).to(where).eval()
    load(coder, base, "codec")
    student, critic, teacher = (Colt(config).to(where) for _ in range(3))
    for model in (student, critic, teacher):
        load(model, base, "colt")
    teacher.requires_grad_(False)
    average = Average(student, Colt(config).to(where))
    for_student = torch.optim.AdamW(student.parameters(), STUDENT_RATE, (0.0, 0.98))
    for_critic = torch.optim.AdamW(critic.parameters(), CRITIC_RATE, (0.0, 0.98))
    parts = {
        "student": student, "critic": critic, "average": average,
        "for_student": for_student, "for_critic": for_critic,
    }  # fmt: skip
    stream = batches(load_or_make(clips_of / "clips", coder, clips, seed), batch)
    student_run, critic_run, teacher_run = (
        compiled(model, compile) for model in (student, critic, teacher)
    )
    with Run(out, updates, ("student", "critic"), seed=seed, **parts) as run:
        while run.more():
            run.pace(for_student, STUDENT_RATE, warm=20, down=updates // 3)
            run.pace(for_critic, CRITIC_RATE, warm=20, down=updates // 3)
            loss, made, known = student_loss(
                student_run, critic_run, teacher_run, next(stream), steps, guidance
            )
            run.learn(loss, student, for_student)
            average.follow(student, min(0.98, run.step / (run.step + 10)))
            for _ in range(CRITIC_UPDATES):
                doubt = critic_loss(critic_run, made, known)
                run.learn(doubt, critic, for_critic)
            run.row(student=loss, critic=doubt)
            if run.step % 200 == 0 or run.step == updates:
                kept = {"colt": average.kept, "codec": coder}
                run.release(f"step-{run.step}.safetensors", kept, config)


def main() -> None:
    parser = arguments(__doc__, updates=1000, batch=16, clips=20_000)
    parser.add_argument("--base", type=Path, required=True, help="weights of the base model")
    parser.add_argument("--clips-of", type=Path, required=True, help="its run, for the clips")
    parser.add_argument("--steps", type=int, default=6, help="of the student's sampling")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the teacher")
    distill(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()

"""The in-house model's commands, on a model that learns nothing in seconds."""

import csv
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generation.backends.colt.codec import Codec
from generation.backends.colt.data import pixels
from generation.backends.colt.sample import load_release, sample
from generation.backends.colt.score import scenes
from generation.backends.colt.weights import load, read_config, save
from generation.backends.scenes.grammar import NotAScene
from generation.backends.scenes.judge import judge, name
from generation.backends.scenes.renderer import (
    SAMPLE_RATE,
    plan_tracks,
    render_frames,
    render_sound,
)

pytestmark = pytest.mark.torch

SENTENCE = "a big red star bounces at night"


def run(command: str, *arguments: object) -> None:
    """`python -m generation.backends.colt.COMMAND ARGUMENTS`, with torch loaded only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [command, *map(str, arguments), "--no-compile"])
        import_module(f"generation.backends.colt.{command}").main()


def rows(folder: Path) -> list[list[str]]:
    """The losses that a run wrote down, without how long each step took."""
    with (folder / "metrics.csv").open() as file:
        return [[row[0], *row[2:]] for row in csv.reader(file)]


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec, a base trained in one go, its distillation and an upscaler."""
    home = tmp_path_factory.mktemp("colt")
    codec = home / "codec" / "codec.safetensors"
    run("codec", "--out", home / "codec", "--size", "tiny", "--steps", 3)
    run(
        "train", "--out", home / "base", "--codec", codec, "--clips", 40, "--batch", 4,
        "--steps", 4, "--down", 1, "--release", 2,
    )  # fmt: skip
    run(
        "distill", "--out", home / "fast", "--base", home / "base" / "step-4.safetensors",
        "--clips-of", home / "base", "--clips", 40, "--batch", 4, "--updates", 2, "--steps", 2,
    )  # fmt: skip
    run("upscale", "--out", home / "up", "--codec", codec, "--steps", 2, "--batch", 2)
    return home


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(lineage: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(lineage / "base" / "clips")
    begin = ("train", "--out", tmp_path, "--codec", lineage / "codec" / "codec.safetensors",
             "--clips", 40, "--batch", 4, "--down", 1)  # fmt: skip
    run(*begin, "--steps", 3)
    run(*begin, "--steps", 4)
    assert rows(tmp_path) == rows(lineage / "base")
    one, other = (
        load_file(folder / "step-4.safetensors") for folder in (tmp_path, lineage / "base")
    )
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_every_part_of_the_lineage_makes_clips_of_the_declared_form(lineage: Path) -> None:
    base = lineage / "base" / "step-4.safetensors"
    config = read_config(base)
    for release, size in (
        (load_release(lineage / "base" / "step-2.safetensors"), config.size),
        (load_release(base), config.size),
        (load_release(lineage / "fast" / "step-2.safetensors"), config.size),
        (load_release(base, lineage / "up" / "upscale.safetensors"), 4 * config.size),
    ):
        frames, sounds = sample(release, [SENTENCE], seeds=[1], steps=2, guidance=1.0)
        assert frames.shape == (1, config.frames, size, size, 3)
        assert frames.dtype == np.uint8
        assert sounds.shape == (1, int(config.seconds * SAMPLE_RATE))
        assert np.isfinite(sounds).all()


def test_a_clip_depends_on_its_seed_and_not_on_its_batch(lineage: Path) -> None:
    release = load_release(lineage / "base" / "step-4.safetensors")
    texts = [SENTENCE, "a small blue circle falls by day"]
    settings = {"steps": 3, "guidance": 2.0}
    both, sounds = sample(release, texts, seeds=[5, 6], **settings)  # type: ignore[arg-type]
    alone, sound = sample(release, texts[1:], seeds=[6], **settings)  # type: ignore[arg-type]
    other, _ = sample(release, texts[1:], seeds=[7], **settings)  # type: ignore[arg-type]
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1
    assert np.abs(sounds[1] - sound[0]).max() < 1e-2
    assert (other != alone).any()


def test_a_sentence_outside_the_grammar_is_refused(lineage: Path) -> None:
    release = load_release(lineage / "base" / "step-4.safetensors")
    with pytest.raises(NotAScene, match="a colour"):
        sample(release, ["a big pink star bounces at night"], seeds=[1], steps=1, guidance=1.0)


def test_weights_survive_their_file(lineage: Path, tmp_path: Path) -> None:
    release = load_release(lineage / "base" / "step-4.safetensors")
    save({"colt": release.colt}, tmp_path / "again.safetensors", release.colt.config, {})
    before = {k: v.clone() for k, v in release.colt.state_dict().items()}
    load(release.colt, tmp_path / "again.safetensors", "colt")
    for key, value in release.colt.state_dict().items():
        # Eight bits per row's largest number, or half precision.
        assert torch.allclose(value, before[key], atol=float(before[key].abs().max()) / 200), key


def test_the_codec_s_linear_part_keeps_all_but_fine_detail(lineage: Path) -> None:
    linear = lineage / "codec" / "linear.safetensors"  # written before the network learnt anything
    config = read_config(linear)
    codec = Codec(config)
    load(codec, linear, "codec")
    video = pixels(config, 8, np.random.default_rng(5)).float() / 127.5 - 1
    with torch.inference_mode():
        back = codec.decode(codec.encode(video))
    flat = (video - video.mean((3, 4), keepdim=True)).abs().mean()
    assert (back - video).abs().mean() < 0.5 * flat


def test_the_judge_knows_the_renderer_from_another_scene() -> None:
    scene, other = scenes(2)
    seconds = 2.0
    tracks = plan_tracks(scene, 3, 3, seconds)
    frames = render_frames(scene, tracks, size=64, fps=16, seconds=seconds)
    sound = render_sound(tracks, seconds)[:, 0]
    right, wrong = name(scene, frames, 16), name(other, frames, 16)
    assert (right.colour, right.shape, right.motion) == (1.0, 1.0, 1.0)
    assert wrong.motion < 1.0 or wrong.shape < 1.0
    good = judge(scene, frames, 16, sound, SAMPLE_RATE)
    late = judge(scene, frames, 16, np.roll(sound, SAMPLE_RATE // 2), SAMPLE_RATE)
    assert good.sound > 0.9 > late.sound
    assert good.overall > judge(other, frames, 16, sound, SAMPLE_RATE).overall

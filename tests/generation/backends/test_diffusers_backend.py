"""The diffusers backend: what it refuses before loading anything, and what tiny pipelines make."""

import functools
import gc
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generation.backends import CannotRender, Request
from generation.backends.diffusers import backend as diffusers
from generation.catalogue.categories import Category, Conditions
from generation.media import profile
from generation.media.reading import probe
from generation.models import Clip, ClipState, PromptSet
from generation.rendering.claims import claim_clip
from generation.rendering.model_cache import WARM
from generation.rendering.queue import queue_clips
from generation.rendering.render import render_claimed
from tests.generation.tiny_clips import SQUARE, ignore, same, tiny, wish

pytestmark = pytest.mark.torch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WIDE = Image.new("RGB", (160, 90))
WAN, WAN_IMAGE = "WanPipeline", "WanImageToVideoPipeline"
LTX2, LTX2_IMAGE = "LTX2Pipeline", "LTX2ImageToVideoPipeline"


# --- before anything is loaded -------------------------------------------------------------------


def published(**changes: Any) -> dict[str, Any]:
    """Settings as a catalogue would have them: Wan 2.1 at 720p from the hub."""
    settings = {
        "pipeline": WAN,
        "source": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "revision": COMMIT,
        "dtype": "bfloat16",
        "offload": "model",
        "width": 1280,
        "height": 720,
        "frames": 81,
        "fps": 16,
        "arguments": {"num_inference_steps": 50, "guidance_scale": 5.0, "negative_prompt": ""},
    }
    return {name: value for name, value in {**settings, **changes}.items() if value is not None}


def asked(**changes: Any) -> Request:
    values = {
        "text": "a big red circle bounces by day",
        "conditions": Conditions("16:9", 5.0),
        "audio": False,
        "seed": 1,
    }
    return Request(**{**values, **changes})


@pytest.mark.parametrize(
    ("values", "request_"),
    [
        (published(), asked()),
        (published(width=848, height=480, frames=121, fps=24), asked()),
        (published(source="/models/wan", revision=None, digest="0" * 64), asked()),
        (published(width=720, height=1280), asked(conditions=Conditions("9:16", 5.0))),
        (published(frames=45), asked(conditions=Conditions("16:9", 2.8))),
        (published(pipeline=WAN_IMAGE), asked(image=WIDE)),
        (published(pipeline=LTX2, width=1248, height=704, frames=121, fps=24), asked(audio=True)),
        (published(pipeline="Kandinsky6TI2VAPipeline"), asked(audio=True)),
        (published(pipeline="Kandinsky6TI2VAPipeline"), asked(audio=True, image=WIDE)),
        (published(pipeline="MochiPipeline", frames=151, fps=30, width=848, height=480), asked()),
    ],
)
def test_what_fits_is_accepted(values: dict[str, Any], request_: Request) -> None:
    diffusers.check(values, request_)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": None}, "setting dtype is missing"),
        ({"steps": 50}, "Unknown diffusers setting steps"),
        ({"pipeline": "StableDiffusionPipeline"}, "not known here; known are WanPipeline"),
        ({"pipeline": ["WanPipeline"]}, "not known here"),
        ({"source": "wan"}, "neither “org/name” on the hub nor an absolute directory"),
        ({"source": "../models/wan"}, "neither “org/name”"),
        ({"source": 3}, "neither “org/name”"),
        ({"revision": None}, "must be pinned"),
        ({"revision": ""}, "must be pinned"),
        ({"revision": "main"}, "40 hexadecimal digits of a commit, not 'main'"),
        ({"revision": COMMIT[:7]}, "must be pinned"),
        ({"digest": "0" * 64}, "has no digest, because it is on the hub"),
        ({"source": "/models/wan"}, "has no revision, because it is a directory"),
        ({"source": "/models/wan", "revision": None}, "generation.backends.diffusers /models/wan"),
        ({"source": "/wan", "revision": None, "digest": COMMIT}, "must be pinned"),
        ({"tiling": "yes"}, "tiling is 'yes'; it is true or false"),
        ({"scheduler": 5.0}, "scheduler is 5.0; it must be a table"),
        ({"guider": []}, "guider is .*; it must be a table"),
        ({"t2v": "wan"}, "t2v is 'wan'; it must be a table"),
        ({"i2v": {"width": 640}}, "width can't differ between tasks: take it out of i2v"),
        ({"dtype": "int8"}, "dtype is 'int8'; it can be bfloat16, float16, float32"),
        ({"offload": "disk"}, "offload is 'disk'; it can be none, model, sequential"),
        ({"width": 0}, "width is 0; it must be a whole number from 1 to 8,192"),
        ({"height": 720.0}, "height is 720.0; it must be a whole number"),
        ({"frames": True}, "frames is True; it must be a whole number"),
        ({"fps": 0}, "fps is 0; it must be a number above 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": "16"}, "fps is '16'"),
        ({"arguments": [50]}, "arguments is .50.; it must be a table"),
        ({"arguments": {"guidance_scale": 5.0}}, "num_inference_steps is None"),
        ({"arguments": {"num_inference_steps": 0}}, "num_inference_steps is 0"),
        (
            {"arguments": {"num_inference_steps": 10**9}},
            "num_inference_steps is 1000000000; it must be a whole number from 1 to 1,000",
        ),
        (
            {"arguments": {"num_inference_steps": 1001}},
            "num_inference_steps is 1001; it must be a whole number from 1 to 1,000",
        ),
        (
            {"arguments": {"num_inference_steps": 9, "guidance_scale": 1e9}},
            "arguments.guidance_scale is 1000000000.0; it must be a number from 0 to 100",
        ),
        (
            {"arguments": {"num_inference_steps": 9, "guidance_scale": float("nan")}},
            "arguments.guidance_scale is nan",
        ),
        (
            {"arguments": {"num_inference_steps": 9, "sigmas": [1.0, float("inf")]}},
            "arguments.sigmas is inf",
        ),
        ({"scheduler": {"flow_shift": 1e12}}, "scheduler.flow_shift is 1000000000000.0"),
        ({"frames": 10**9}, "frames is 1000000000; it must be a whole number from 1 to 3,601"),
        ({"fps": 1e9}, "fps is 1000000000.0; it must be a number above 0 and at most 240"),
        (
            {"arguments": {"num_inference_steps": 9, "num_frames": 5, "generator": 1}},
            "argument generator, num_frames is set by the arena",
        ),
        (
            {"width": 1270},
            "can't make 1270x720: both must be multiples of 16; the nearest are 1264x",
        ),
        ({"width": 1290, "height": 725}, "the nearest are 1296x720"),
        ({"frames": 80}, "1 more than a multiple of 4; the nearest are 77 and 81"),
        ({"frames": 82}, "the nearest are 81 and 85"),
        ({"pipeline": LTX2, "height": 704, "frames": 125}, "the nearest are 121 and 129"),
        ({"pipeline": "CogVideoXPipeline", "frames": 85}, "the nearest are 81 and 89"),
        ({"pipeline": "MochiPipeline", "frames": 84}, "the nearest are 79 and 85"),
        ({"width": 768, "height": 480}, "768x480 is not 16:9 within 4%: 848x480 would be nearest"),
        ({"frames": 77}, "77 frames are too few for 5 s at 16 frames a second: set frames to 81"),
        ({"fps": 24}, "81 frames are too few .* set frames to 121 or more"),
    ],
)
def test_settings_that_can_not_work_are_refused(changes: dict[str, Any], words: str) -> None:
    settings = {**published(), **changes}
    with pytest.raises(CannotRender, match=words):
        diffusers.check({k: v for k, v in settings.items() if v is not None}, asked())


@pytest.mark.parametrize(
    ("pipeline", "request_", "words"),
    [
        (WAN_IMAGE, asked(), "needs a reference image"),
        (WAN, asked(image=WIDE), "takes no reference image"),
        (WAN, asked(audio=True), "makes no sound"),
        (
            WAN_IMAGE,
            asked(image=Image.fromarray(SQUARE)),
            "96x96 pixels, another shape than 1280x720",
        ),
        (WAN, asked(conditions=Conditions("1:1", 5.0)), "1280x720 is not 1:1 within 4%: 720x720"),
        (WAN, asked(conditions=Conditions("16:9", 6.0)), "too few for 6 s .* set frames to 97"),
    ],
)
def test_requests_that_a_pipeline_can_not_meet_are_refused(
    pipeline: str, request_: Request, words: str
) -> None:
    with pytest.raises(CannotRender, match=words):
        diffusers.check(published(pipeline=pipeline), request_)


@pytest.mark.parametrize("pipeline", diffusers.PIPELINES)
def test_the_nearest_values_a_refusal_names_are_accepted(pipeline: str) -> None:
    kind = diffusers.PIPELINES[pipeline]
    request_ = asked(image=WIDE if kind.image == "always" else None)
    settings = published(pipeline=pipeline, width=1601, height=899, frames=180, fps=30)
    with pytest.raises(CannotRender, match="nearest") as size:
        diffusers.check(settings, request_)
    settings["width"], settings["height"] = map(int, re.findall(r"(\d+)x(\d+)", str(size.value))[1])
    with pytest.raises(CannotRender, match="nearest") as length:
        diffusers.check(settings, request_)
    for frames in re.findall(r"\d+", str(length.value).split("nearest")[1]):
        diffusers.check({**settings, "frames": int(frames)}, request_)


def test_checking_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys\n"
        "from generation.backends import Request\n"
        "from generation.backends.registry import load_backend\n"
        "from generation.catalogue.categories import Conditions\n"
        f"settings = {published()!r}\n"
        "request = Request('a boat', Conditions('16:9', 5.0), False, 1)\n"
        "load_backend('diffusers').check(settings, request)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- with tiny pipelines -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of random weights for each of four pipelines."""
    from tests.generation.backends import tiny_pipelines as tiny

    home = tmp_path_factory.mktemp("weights")
    return {
        WAN: tiny.save_wan(home / "wan", image=False),
        WAN_IMAGE: tiny.save_wan(home / "wan-image", image=True),
        LTX2: tiny.save_ltx2(home / "ltx2", image=False),
        LTX2_IMAGE: tiny.save_ltx2(home / "ltx2-image", image=True),
    }


@pytest.fixture(scope="module", autouse=True)
def quick(weights: dict[str, Path]) -> Iterator[None]:
    """Tiny tensors are computed faster by one thread; nothing stays loaded afterwards.

    Each change of pipeline collects garbage; the libraries' own objects needn't be looked at.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)
    WARM.clear()


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil(path: Path, name: str) -> None:
    """Make one tensor of a safetensors file NaN."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("pipeline", "image"), [(WAN, None), (WAN_IMAGE, SQUARE), (LTX2, None), (LTX2_IMAGE, SQUARE)]
)
def test_a_clip_is_what_was_asked_and_the_same_again(
    weights: dict[str, Path], pipeline: str, image: np.ndarray | None
) -> None:
    settings, audio = tiny(pipeline, weights[pipeline]), pipeline.startswith("LTX2")
    seen: list[tuple[int, int]] = []
    clip = diffusers.render(settings, wish(audio, image), lambda *step: seen.append(step))
    assert clip.frames.shape == (16, 64, 64, 3)  # 17 made, one second of 16 asked
    assert clip.frames.dtype == np.uint8
    assert clip.frames.std() > 1
    assert clip.fps == 16.0
    assert (seen[0], seen[-1]) == ((0, 2), (2, 2))
    assert (1, 2) in seen
    if audio:
        assert clip.audio is not None
        assert (clip.audio.shape, clip.audio.dtype) == ((16_000, 2), np.float32)
        assert clip.sample_rate == 16_000
        assert 0 < np.abs(clip.audio).max() <= 1
    else:
        assert (clip.audio, clip.sample_rate) == (None, None)
    other = diffusers.render(settings, wish(audio, image, seed=8), ignore)
    assert not same(clip, other)
    assert same(clip, diffusers.render(settings, wish(audio, image), ignore))


def test_a_fresh_load_makes_the_same_clip(weights: dict[str, Path]) -> None:
    settings = tiny(WAN, weights[WAN])
    warm = diffusers.render(settings, wish(), ignore)
    WARM.clear()
    assert same(warm, diffusers.render(settings, wish(), ignore))


def test_the_reference_image_reaches_the_clip_at_its_size(weights: dict[str, Path]) -> None:
    settings = tiny(WAN_IMAGE, weights[WAN_IMAGE])
    clip = diffusers.render(settings, wish(image=SQUARE), ignore)
    assert not same(clip, diffusers.render(settings, wish(image=255 - SQUARE), ignore))
    resized = Image.fromarray(SQUARE).resize((64, 64), Image.Resampling.LANCZOS)
    assert same(clip, diffusers.render(settings, wish(image=np.asarray(resized)), ignore))


def test_the_model_is_told_the_frame_rate(weights: dict[str, Path]) -> None:
    slow, fast = (
        diffusers.render(tiny(LTX2, weights[LTX2], fps=fps), wish(), ignore) for fps in (8, 16)
    )
    assert (len(slow.frames), len(fast.frames)) == (8, 16)
    assert not np.array_equal(slow.frames, fast.frames[:8])


def test_a_silent_category_drops_the_sound(weights: dict[str, Path]) -> None:
    silent = diffusers.render(tiny(LTX2, weights[LTX2]), wish(audio=False), ignore)
    assert (silent.audio, silent.sample_rate) == (None, None)
    loud = diffusers.render(tiny(LTX2, weights[LTX2]), wish(audio=True), ignore)
    assert np.array_equal(silent.frames, loud.frames)


def test_half_precision_works_and_keeps_the_vae_of_wan_exact(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from diffusers import WanPipeline

    run, dtypes = WanPipeline.__call__, {}

    @functools.wraps(run)
    def watched(pipe: Any, **arguments: Any) -> Any:
        dtypes.update({name: getattr(pipe, name).dtype for name in ("transformer", "vae")})
        return run(pipe, **arguments)

    exact = diffusers.render(tiny(WAN, weights[WAN]), wish(), ignore)
    monkeypatch.setattr(WanPipeline, "__call__", watched)
    half = diffusers.render(tiny(WAN, weights[WAN], dtype="bfloat16"), wish(), ignore)
    assert dtypes == {"transformer": torch.bfloat16, "vae": torch.float32}
    difference = np.abs(half.frames.astype(int) - exact.frames.astype(int))
    assert 0 < difference.mean() < 3  # of 255


def test_what_progress_raises_ends_the_render_and_spoils_nothing(
    weights: dict[str, Path],
) -> None:
    class TakenOver(Exception):
        pass

    def cancel(step: int, steps: int) -> None:
        if step == 1:
            raise TakenOver

    settings = tiny(WAN, weights[WAN])
    before = diffusers.render(settings, wish(), ignore)
    with pytest.raises(TakenOver):
        diffusers.render(settings, wish(), cancel)
    assert same(before, diffusers.render(settings, wish(), ignore))


def test_one_pipeline_stays_loaded_for_all_versions_of_its_weights(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(weights[WAN], tmp_path / "gone")
    settings = tiny(WAN, folder)
    one_step = {**settings, "arguments": {**settings["arguments"], "num_inference_steps": 1}}
    diffusers.render(settings, wish(), ignore)
    shutil.rmtree(folder)
    diffusers.render(one_step, wish(), ignore)  # from memory
    WARM.clear()
    with pytest.raises(FileNotFoundError, match="holds no diffusers pipeline"):
        diffusers.render(settings, wish(), ignore)


@pytest.mark.parametrize("pipeline", diffusers.PIPELINES)
def test_the_installed_library_has_every_known_pipeline(pipeline: str) -> None:
    import inspect

    import diffusers as library

    kind = diffusers.PIPELINES[pipeline]
    known = set(inspect.signature(getattr(library, pipeline).__call__).parameters)
    needed = {"prompt", "num_frames", "generator", "output_type"}
    assert ({"width", "height"} <= known) == kind.sized
    needed |= {"num_inference_steps"} | ({kind.rate_argument} - {""})
    assert needed <= known
    assert ("image" in known) == (kind.image != "never")
    assert bool({"frame_rate", "fps"} & known) == bool(kind.rate_argument)


class TestWhatOnlyShowsWithTheWeights:
    def test_an_argument_the_pipeline_does_not_have(self, weights: dict[str, Path]) -> None:
        arguments = {"num_inference_steps": 2, "guidance": 5.0}
        settings = tiny(WAN, weights[WAN], arguments=arguments)
        with pytest.raises(CannotRender, match=r"no argument guidance; it has .*guidance_scale"):
            diffusers.render(settings, wish(), ignore)

    def test_a_coarser_vae_than_the_class_has_otherwise(
        self, weights: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(weights[WAN], tmp_path / "coarse")
        edit_json(folder / "vae" / "config.json", scale_factor_spatial=16)
        settings = tiny(WAN, folder, width=48, height=48)
        with pytest.raises(CannotRender, match="multiples of 32; the nearest are 64x64"):
            diffusers.render(settings, wish(), ignore)

    def test_frames_that_are_not_what_was_asked(
        self, weights: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(weights[WAN], tmp_path / "short")
        edit_json(folder / "vae" / "config.json", scale_factor_temporal=8)  # it is 4
        with pytest.raises(CannotRender, match=r"\[9, 64, 64, 3\] where \[17, 64, 64, 3\]"):
            diffusers.render(tiny(WAN, folder), wish(), ignore)

    def test_pixels_that_are_no_numbers(self, weights: dict[str, Path], tmp_path: Path) -> None:
        folder = copy_of(weights[WAN], tmp_path / "nan")
        spoil(folder / "vae" / "diffusion_pytorch_model.safetensors", "decoder.conv_out.bias")
        with pytest.raises(CannotRender, match="pixels that are no numbers in float32"):
            diffusers.render(tiny(WAN, folder), wish(), ignore)

    def test_sound_that_is_no_numbers(self, weights: dict[str, Path], tmp_path: Path) -> None:
        folder = copy_of(weights[LTX2], tmp_path / "nan")
        spoil(folder / "vocoder" / "diffusion_pytorch_model.safetensors", "conv_out.bias")
        with pytest.raises(CannotRender, match="sound that is no numbers in float32"):
            diffusers.render(tiny(LTX2, folder), wish(audio=True), ignore)

    def test_sound_that_ends_before_the_pictures(
        self, weights: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = copy_of(weights[LTX2], tmp_path / "brief")
        edit_json(folder / "vocoder" / "config.json", output_sampling_rate=48_000)  # it is 16,000
        with pytest.raises(CannotRender, match=r"0\.\d\d s of sound for 1\.00 s of video"):
            diffusers.render(tiny(LTX2, folder), wish(audio=True), ignore)

    def test_no_sound_at_all(
        self, weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

        monkeypatch.setattr(LTX2Vocoder, "forward", lambda *_: None)
        settings = tiny(LTX2, weights[LTX2])
        assert diffusers.render(settings, wish(audio=False), ignore).audio is None
        with pytest.raises(CannotRender, match="returned no sound"):
            diffusers.render(settings, wish(audio=True), ignore)


class Payload:
    """What a hostile pickle does when it is read: it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


class TestWeightsAreDataOnly:
    def test_a_pickle_is_never_read(self, weights: dict[str, Path], tmp_path: Path) -> None:
        folder, marker = copy_of(weights[WAN], tmp_path / "pickled"), tmp_path / "marker"
        (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
        with (folder / "transformer" / "diffusion_pytorch_model.bin").open("wb") as file:
            pickle.dump(Payload(marker), file)
        with pytest.raises(OSError, match="safetensors"):
            diffusers.render(tiny(WAN, folder), wish(), ignore)
        assert not marker.exists()

    @pytest.mark.parametrize("key", ["_class_name", "transformer"])
    def test_code_beside_the_weights_is_never_run(
        self, weights: dict[str, Path], tmp_path: Path, key: str
    ) -> None:
        folder, marker = copy_of(weights[WAN], tmp_path / "coded"), tmp_path / "marker"
        place = folder if key == "_class_name" else folder / key
        code = f"open({str(marker)!r}, 'w')\nfrom diffusers import WanPipeline as Own\n"
        (place / "own.py").write_text(code)
        edit_json(folder / "model_index.json", **{key: ["own", "Own"]})
        with pytest.raises(ValueError, match="trust_remote_code"):
            diffusers.render(tiny(WAN, folder), wish(), ignore)
        assert not marker.exists()


def test_a_hub_repository_is_read_at_the_pinned_revision(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two revisions lie in the hub's cache; a third would have to be fetched."""
    from huggingface_hub import constants

    from tests.generation.backends.tiny_pipelines import save_wan

    repository = tmp_path / "cache" / "models--lab--tiny-wan"
    first, second, absent = COMMIT, COMMIT[::-1], "f" * 40
    copy_of(weights[WAN], repository / "snapshots" / first)
    save_wan(repository / "snapshots" / second, image=False, seed=1)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(second)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # A directory of the same name must not be taken for the repository.
    monkeypatch.chdir(tmp_path)
    save_wan(tmp_path / "lab" / "tiny-wan", image=False, seed=2)

    hub = tiny(WAN, "lab/tiny-wan")
    pinned = diffusers.render({**hub, "revision": first}, wish(), ignore)
    assert same(pinned, diffusers.render(tiny(WAN, weights[WAN]), wish(), ignore))
    assert not same(pinned, diffusers.render({**hub, "revision": second}, wish(), ignore))
    with pytest.raises(OSError, match="not fully cached"):
        diffusers.render({**hub, "revision": absent}, wish(), ignore)


class TestMemory:
    def test_offload_without_a_gpu_is_an_error(self, weights: dict[str, Path]) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        with pytest.raises(
            RuntimeError, match="asks for model offload, but this worker has no GPU"
        ):
            diffusers.render(tiny(WAN, weights[WAN], offload="model"), wish(), ignore)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pipeline", "category"), [(WAN, Category.T2V_SILENT), (LTX2, Category.T2V_AUDIO)]
)
def test_a_version_goes_the_whole_way_to_a_rendition(
    few: PromptSet,
    make_version: Callable[..., Any],
    weights: dict[str, Path],
    pipeline: str,
    category: Category,
) -> None:
    make_version(
        "tiny",
        backend="diffusers",
        settings=tiny(pipeline, weights[pipeline]),
        categories=[category],
        width=64,
        height=64,
        fps=16,
    )
    queued = queue_clips(category, few, limit=1)
    assert (queued.added, queued.refused) == (1, [])
    clip = claim_clip("test")
    assert clip is not None
    assert render_claimed(clip), Clip.objects.get(pk=clip.pk).error
    clip = Clip.objects.get(pk=clip.pk)
    assert clip.state == ClipState.READY
    assert (clip.width, clip.height, clip.fps, clip.seconds) == (64, 64, 16.0, 1.0)
    rendition = probe(Path(clip.rendition.path))
    assert (rendition.width, rendition.height) == profile.canvas_of("1:1")
    assert rendition.frames == 24
    assert rendition.has_audio == category.audio


@pytest.mark.django_db
def test_what_a_version_can_never_make_is_refused_in_the_queue(
    few: PromptSet, make_version: Callable[..., Any], weights: dict[str, Path]
) -> None:
    make_version("tiny", backend="diffusers", settings=tiny(WAN, weights[WAN], fps=24))
    queued = queue_clips(Category.T2V_SILENT, few)
    assert queued.added == 0
    assert len(queued.refused) == 2
    assert "17 frames are too few for 1 s" in queued.refused[0]

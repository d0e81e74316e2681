"""Any text- or image-to-video pipeline of the diffusers library, as a backend.

A version's settings say everything that determines its clips; nothing is guessed:

    pipeline   class name, one of KINDS, such as "WanPipeline"
    source     "org/name" on the Hugging Face hub, or an absolute directory
    revision   the commit, 40 hexadecimal digits: needed for the hub, refused for a directory
    dtype      "bfloat16", "float16" or "float32"
    offload    "none", "model" or "sequential": what leaves the GPU while it is not needed
    width, height, frames, fps
    arguments  the rest of the pipeline's call: num_inference_steps, guidance_scale ...

The library rounds a size or a frame count that doesn't fit and logs a warning. Here that is an
error, before anything is loaded: two versions are only comparable if each made what it was asked.

One pipeline stays loaded per worker process. Weights are read from safetensors files alone, and
no code that lies beside them is ever run.
"""

import gc
import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from generation.backends import CannotRender, Progress, Request
from generation.encoding import FILL_WITHIN, SOUND_SLACK, RawClip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """What a pipeline class makes and which sizes its public checkpoints take."""

    image: Literal["never", "always", "may"]
    sound: bool
    multiple: int  # of width and height, in pixels
    frame_step: int  # frames are 1 more than a multiple of this
    rate_argument: str = ""  # by what name the model is told the frame rate, if it is told
    float32: tuple[str, ...] = ()  # components whose authors run them in full precision


# Read in the source of diffusers 0.42.1. Where a class itself only asks for multiples of its VAE's
# scale, the patches of its transformer are counted in. CogVideoX compresses time by 4, but its VAE
# gives the asked number of frames only for an odd number of latents.
KINDS: Mapping[str, Kind] = {
    "WanPipeline": Kind("never", False, 16, 4, float32=("vae",)),
    "WanImageToVideoPipeline": Kind("always", False, 16, 4, float32=("vae", "image_encoder")),
    "LTXPipeline": Kind("never", False, 32, 8, "frame_rate"),
    "LTXImageToVideoPipeline": Kind("always", False, 32, 8, "frame_rate"),
    "LTX2Pipeline": Kind("never", True, 32, 8, "frame_rate"),
    "LTX2ImageToVideoPipeline": Kind("always", True, 32, 8, "frame_rate"),
    "Kandinsky6TI2VAPipeline": Kind("may", True, 16, 4, "frame_rate"),
    "CogVideoXPipeline": Kind("never", False, 16, 8),
    "CogVideoXImageToVideoPipeline": Kind("always", False, 16, 8),
    "HunyuanVideo15Pipeline": Kind("never", False, 16, 4),
    "MochiPipeline": Kind("never", False, 16, 6),
}
SETTINGS = {
    "pipeline", "source", "dtype", "offload", "width", "height", "frames", "fps", "arguments",
}  # fmt: skip
DTYPES = ("bfloat16", "float16", "float32")
OFFLOADS = ("none", "model", "sequential")
# Set from the request and from the settings above, or not to be set at all.
RESERVED = {
    "prompt", "image", "width", "height", "num_frames", "frame_rate", "generator", "output_type",
    "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs", "latents",
    "audio_latents", "num_videos_per_prompt",
}  # fmt: skip
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
GPU = True
COMMIT = re.compile(r"[0-9a-f]{40}")
# Within this a rendition fills its canvas, so that no bars tell which model made it.
ASPECT_TOLERANCE = FILL_WITHIN


# --- what can be told before anything is loaded --------------------------------------------------


def check(settings: Mapping[str, Any], request: Request) -> None:
    kind = _check_settings(settings)
    _check_grid(settings, kind.multiple, kind.frame_step)
    _check_request(settings, kind, request)


def _check_settings(settings: Mapping[str, Any]) -> Kind:
    """The settings by themselves: complete, known, and pinned to one revision."""
    if missing := SETTINGS - set(settings):
        raise CannotRender(f"The diffusers setting {', '.join(sorted(missing))} is missing.")
    if unknown := set(settings) - SETTINGS - {"revision"}:
        raise CannotRender(
            f"Unknown diffusers setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(SETTINGS | {'revision'}))}."
        )
    pipeline, source = settings["pipeline"], settings["source"]
    if not (isinstance(pipeline, str) and pipeline in KINDS):
        raise CannotRender(
            f"The pipeline “{pipeline}” is not known here; known are {', '.join(KINDS)}."
        )
    _check_source(source, settings.get("revision"))
    for name, known in (("dtype", DTYPES), ("offload", OFFLOADS)):
        if settings[name] not in known:
            raise CannotRender(
                f"The setting {name} is {settings[name]!r}; it can be {', '.join(known)}."
            )
    for name in ("width", "height", "frames"):
        if type(settings[name]) is not int or settings[name] < 1:
            raise CannotRender(
                f"The setting {name} is {settings[name]!r}; it must be a whole number above 0."
            )
    fps = settings["fps"]
    if type(fps) not in (int, float) or not (math.isfinite(fps) and fps > 0):
        raise CannotRender(f"The setting fps is {fps!r}; it must be a number above 0.")
    _check_arguments(settings["arguments"])
    return KINDS[pipeline]


def _check_source(source: Any, revision: Any) -> None:
    if isinstance(source, str) and Path(source).is_absolute():
        if revision is not None:
            raise CannotRender(
                f"The source {source} is a directory, which has no revision: remove the setting."
            )
    elif not (isinstance(source, str) and HUB_NAME.fullmatch(source)):
        raise CannotRender(
            f"The source {source!r} is neither “org/name” on the hub nor an absolute directory."
        )
    elif not (isinstance(revision, str) and COMMIT.fullmatch(revision)):
        raise CannotRender(
            f"The source {source} must be pinned: set revision to the 40 hexadecimal digits of a "
            f"commit, not {revision!r}."
        )


def _check_arguments(arguments: Any) -> None:
    if not isinstance(arguments, Mapping):
        raise CannotRender(f"The setting arguments is {arguments!r}; it must be a table.")
    if reserved := RESERVED & set(arguments):
        raise CannotRender(
            f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
            "arguments."
        )
    # The defaults of a library change with it; the number of steps is what a version stands for.
    steps = arguments.get("num_inference_steps")
    if type(steps) is not int or steps < 1:
        raise CannotRender(
            f"The argument num_inference_steps is {steps!r}; it must be a whole number above 0."
        )


def _check_grid(settings: Mapping[str, Any], multiple: int, frame_step: int) -> None:
    """Refuse what the pipeline would round."""
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if width % multiple or height % multiple:
        raise CannotRender(
            f"{pipeline} can't make {width}x{height}: both must be multiples of {multiple}; the "
            f"nearest are {_nearest(width, multiple)}x{_nearest(height, multiple)}."
        )
    frames = settings["frames"]
    if excess := (frames - 1) % frame_step:
        raise CannotRender(
            f"{pipeline} can't make {frames} frames: they must be 1 more than a multiple of "
            f"{frame_step}; the nearest are {frames - excess} and {frames - excess + frame_step}."
        )


def _nearest(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


def _check_request(settings: Mapping[str, Any], kind: Kind, request: Request) -> None:
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if request.image is None and kind.image == "always":
        raise CannotRender(f"{pipeline} needs a reference image: ask it for image to video only.")
    if request.image is not None and kind.image == "never":
        raise CannotRender(f"{pipeline} takes no reference image: ask it for text to video only.")
    if request.audio and not kind.sound:
        raise CannotRender(f"{pipeline} makes no sound: ask it for silent clips only.")
    across, down = (int(part) for part in request.conditions.aspect.split(":"))
    if _differ(width / height, across / down):
        fitting = _nearest(height * across / down, kind.multiple)
        raise CannotRender(
            f"{width}x{height} is not {request.conditions.aspect} within {ASPECT_TOLERANCE:.0%}: "
            f"{fitting}x{height} would be nearest."
        )
    if request.image is not None:
        image_height, image_width = request.image.shape[:2]
        if _differ(image_width / image_height, width / height):
            raise CannotRender(
                f"The reference image has {image_width}x{image_height} pixels, another shape than "
                f"{width}x{height}, and would be distorted: give one of the prompt's own aspect."
            )
    seconds, fps = request.conditions.seconds, settings["fps"]
    if settings["frames"] < (needed := round(seconds * fps)):
        allowed = math.ceil((needed - 1) / kind.frame_step) * kind.frame_step + 1
        raise CannotRender(
            f"{settings['frames']} frames are too few for {seconds:g} s at {fps:g} frames a "
            f"second: set frames to {allowed} or more."
        )


def _differ(one: float, other: float) -> bool:
    return abs(one / other - 1) > ASPECT_TOLERANCE


# --- making a clip -------------------------------------------------------------------------------


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    """Make the clip on the warm pipeline, loading it first if it is another one.

    When the GPU's memory runs out, everything is dropped and the clip is tried once more with
    sequential offload and a tiled VAE. A pipeline that needed that stays so while it is warm.
    """
    check(settings, request)
    made = _attempt(settings, request, progress, frugal=False)
    if made is None:
        log.warning(
            "%s from %s ran out of GPU memory: trying once more, slowly, with sequential offload "
            "and a tiled VAE",
            settings["pipeline"],
            settings["source"],
        )
        unload()
        made = _attempt(settings, request, progress, frugal=True)
    if made is None:
        unload()
        raise RuntimeError(
            f"{settings['pipeline']} from {settings['source']} runs out of GPU memory even with "
            "sequential offload and a tiled VAE: give the worker a GPU with more memory."
        )
    return made


def _attempt(
    settings: Mapping[str, Any], request: Request, progress: Progress, *, frugal: bool
) -> RawClip | None:
    """The clip, or None when the GPU's memory ran out.

    The exception ends here because its traceback would keep the tensors of the attempt alive.
    """
    import torch

    try:
        pipe = _warmed(settings, frugal)
        call = _call(pipe, settings, request, progress)
        progress(0, settings["arguments"]["num_inference_steps"])
        try:
            output = pipe(**call)
        except BaseException:
            pipe.maybe_free_model_hooks()  # a run that breaks off leaves models on the GPU
            raise
        progress(pipe.num_timesteps, pipe.num_timesteps)
        frames = _pixels(output.frames, settings, request)
        if not request.audio:
            return RawClip(frames, float(settings["fps"]), None, None)
        rate = _sample_rate(pipe)
        sound = _sound(getattr(output, "audio", None), rate, len(frames), settings)
        return RawClip(frames, float(settings["fps"]), sound, rate)
    except torch.OutOfMemoryError:
        return None


def _call(
    pipe: Any, settings: Mapping[str, Any], request: Request, progress: Progress
) -> dict[str, Any]:
    """Everything that is handed to the pipeline's call."""
    import torch

    kind = KINDS[settings["pipeline"]]
    call = {
        **settings["arguments"],
        "prompt": request.text,
        "width": settings["width"],
        "height": settings["height"],
        "num_frames": settings["frames"],
        # On the CPU, so that a seed means the same noise on every kind of machine.
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "np",
    }
    if kind.rate_argument:
        call[kind.rate_argument] = settings["fps"]
    if request.image is not None:
        size = (settings["width"], settings["height"])
        image = Image.fromarray(request.image)
        call["image"] = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if "callback_on_step_end" in inspect.signature(type(pipe).__call__).parameters:
        call["callback_on_step_end"] = _step_callback(progress)
    return call


def _step_callback(progress: Progress) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    """Reports each step; what `progress` raises ends the run."""

    def after_step(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress(step + 1, pipe.num_timesteps)
        return tensors

    return after_step


# --- the warm pipeline ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Warm:
    """The pipeline that is loaded, and what it was loaded from."""

    key: tuple[Any, ...]
    frugal: bool
    pipe: Any


_warm: Warm | None = None


def unload() -> None:
    """Drop the warm pipeline and give its memory back."""
    import torch

    global _warm
    _warm = None
    gc.collect()  # offload hooks and their models refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _warmed(settings: Mapping[str, Any], frugal: bool) -> Any:
    """The pipeline of these settings; versions that differ in their arguments share it."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is first imported

    import diffusers

    global _warm
    pipeline_class = getattr(diffusers, settings["pipeline"])
    _check_argument_names(pipeline_class, settings)
    names = ("pipeline", "source", "revision", "dtype", "offload")
    key = tuple(settings.get(name) for name in names)
    if _warm is not None and (_warm.key != key or (frugal and not _warm.frugal)):
        unload()  # before loading, because two pipelines may not fit
    if _warm is None:
        _warm = Warm(key, frugal, _load(pipeline_class, settings, frugal))
    _check_against_weights(_warm.pipe, settings)
    return _warm.pipe


def _load(pipeline_class: Any, settings: Mapping[str, Any], frugal: bool) -> Any:
    import diffusers
    import torch
    import transformers

    offload = "sequential" if frugal else settings["offload"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if offload != "none" and device == "cpu":
        raise RuntimeError(
            f"{settings['pipeline']} from {settings['source']} asks for {offload} offload, but "
            "this worker has no GPU: render this version on a host that has one."
        )
    for library in (diffusers, transformers):  # a worker's log is no place for progress bars
        library.utils.logging.disable_progress_bar()
    log.info("loading %s from %s", settings["pipeline"], settings["source"])
    dtype = getattr(torch, settings["dtype"])
    full = dict.fromkeys(KINDS[settings["pipeline"]].float32, torch.float32)
    pipe = pipeline_class.from_pretrained(
        _directory(pipeline_class, settings),
        dtype={"default": dtype, **full},
        use_safetensors=True,
        trust_remote_code=False,
    )
    pipe.set_progress_bar_config(disable=True)
    if frugal:
        pipe.vae.enable_tiling()
    if offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    elif offload == "model":
        pipe.enable_model_cpu_offload()
    else:
        pipe.to(device)
    return pipe


def _check_argument_names(pipeline_class: type, settings: Mapping[str, Any]) -> None:
    known = set(inspect.signature(pipeline_class.__call__).parameters) - RESERVED - {"self"}
    if unknown := set(settings["arguments"]) - known:
        raise CannotRender(
            f"{settings['pipeline']} has no argument {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}."
        )


def _directory(pipeline_class: Any, settings: Mapping[str, Any]) -> str:
    """Where the weights lie: the directory named, or the pinned revision in the hub's cache.

    Fetched in a step of its own because the library prefers a directory that happens to be called
    like the hub's repository.
    """
    source: str = settings["source"]
    if Path(source).is_absolute():
        if not (Path(source) / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{source} holds no diffusers pipeline (no model_index.json): put the weights "
                "there on every machine that renders."
            )
        return source
    folder = pipeline_class.download(
        source, revision=settings["revision"], use_safetensors=True, trust_remote_code=False
    )
    return str(folder)


def _check_against_weights(pipe: Any, settings: Mapping[str, Any]) -> None:
    """The grid once more, by the weights themselves.

    Checkpoints of one class differ: the VAE of Wan 2.2 5B is twice as coarse as its sisters'.
    """
    kind = KINDS[settings["pipeline"]]
    space = (
        "vae_scale_factor_spatial",
        "vae_spatial_compression_ratio",
        "vae_spatial_scale_factor",
    )
    time = (
        "vae_scale_factor_temporal",
        "vae_temporal_compression_ratio",
        "vae_temporal_scale_factor",
    )
    network = pipe.transformer if pipe.transformer is not None else pipe.transformer_2
    patch = network.config.patch_size
    patch = patch if isinstance(patch, int) else max(patch[1:])
    _check_grid(
        settings,
        math.lcm(kind.multiple, patch * _first_attribute(pipe, space)),
        math.lcm(kind.frame_step, _first_attribute(pipe, time)),
    )


def _first_attribute(pipe: Any, names: tuple[str, ...]) -> int:
    return int(next(getattr(pipe, name) for name in names if hasattr(pipe, name)))


# --- from tensors to a clip ----------------------------------------------------------------------


def _pixels(output: Any, settings: Mapping[str, Any], request: Request) -> npt.NDArray[np.uint8]:
    """The frames of the clip, as bytes, if they are exactly what was asked."""
    frames = np.asarray(output[0])
    asked = (settings["frames"], settings["height"], settings["width"], 3)
    if frames.shape != asked:
        raise CannotRender(
            f"{settings['pipeline']} from {settings['source']} returned frames of shape "
            f"{list(frames.shape)} where {list(asked)} were asked: mend the version's settings."
        )
    kept = frames[: round(request.conditions.seconds * settings["fps"])]
    if not np.isfinite(kept).all():
        raise CannotRender(
            f"{settings['pipeline']} from {settings['source']} returned pixels that are no "
            f"numbers in {settings['dtype']}: make a version with another dtype."
        )
    # One by one: a long clip is gigabytes as floats.
    return np.stack([np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8) for frame in kept])


def _sample_rate(pipe: Any) -> int:
    if hasattr(pipe, "audio_sample_rate"):
        return int(pipe.audio_sample_rate)
    return int(pipe.vocoder.config.output_sampling_rate)


def _sound(
    audio: Any, rate: int, frames: int, settings: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """The sound [N, C] that goes with so many frames, from [C, N] or [1, C, N]."""
    import torch

    maker = f"{settings['pipeline']} from {settings['source']}"
    if audio is None:
        raise CannotRender(f"{maker} returned no sound: take it out of the audio categories.")
    if torch.is_tensor(audio):
        audio = audio.detach().float().cpu().numpy()
    samples = np.asarray(audio, np.float32)
    if samples.ndim == 3:
        samples = samples[0]
    if samples.ndim != 2 or samples.shape[0] not in (1, 2):
        raise CannotRender(
            f"{maker} returned sound of shape {list(samples.shape)}; one or two channels are known."
        )
    if not np.isfinite(samples).all():
        raise CannotRender(
            f"{maker} returned sound that is no numbers in {settings['dtype']}: make a version "
            "with another dtype."
        )
    seconds = frames / settings["fps"]
    if samples.shape[1] < (seconds - SOUND_SLACK) * rate:
        raise CannotRender(
            f"{maker} returned {samples.shape[1] / rate:.2f} s of sound for {seconds:.2f} s of "
            "video: mend the version's settings."
        )
    return np.ascontiguousarray(np.clip(samples[:, : round(seconds * rate)].T, -1, 1))

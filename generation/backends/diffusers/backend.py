"""Any text- or image-to-video pipeline of the diffusers library, as a backend.

A version's settings say everything that determines its clips; nothing is guessed:

    pipeline   class name, one of PIPELINES, such as "WanPipeline"
    source     "org/name" on the Hugging Face hub, or an absolute directory
    revision   of the hub's repository: the commit, 40 hexadecimal digits
    digest     of a directory: what `python -m generation.backends.diffusers DIRECTORY` prints
    dtype      "bfloat16", "float16" or "float32"
    offload    "none", "model" or "sequential": what leaves the GPU while it is not needed
    width, height, frames, fps
    arguments  the rest of the pipeline's call: num_inference_steps, guidance_scale ...
    tiling     whether the VAE works in tiles; left out, it does not
    scheduler  what differs from the scheduler that comes with the weights: class, flow_shift ...
    guider     what differs from the guider that comes with the weights: guidance_scale ...
    t2v, i2v   tables: what one task has otherwise. Their weights may be two repositories, but size,
               length, frame rate, dtype and offload belong to the version

The library rounds a size or a frame count that doesn't fit and logs a warning. Here that is an
error, before anything is loaded: two versions are only comparable if each made what it was asked.
Without a revision or a digest a version can be entered, and neither activated nor rendered.

Pipelines stay loaded while they fit (generation/rendering/model_cache.py). Weights are read from
safetensors files alone, and no code that lies beside them is ever run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from generation.backends import CannotRender, NeverRenders, ReportStep, Request
from generation.catalogue.categories import ratio
from generation.media.profile import FILL_WITHIN

if TYPE_CHECKING:
    from generation.media.masters import RawClip


@dataclass(frozen=True)
class PipelineKind:
    """What a pipeline class makes and which sizes its public checkpoints take."""

    image: Literal["never", "always", "may"]
    sound: bool
    multiple: int  # of width and height, in pixels
    frame_step: int  # frames are 1 more than a multiple of this
    rate_argument: str = ""  # by what name the model is told the frame rate, if it is told
    float32: tuple[str, ...] = ()  # components whose authors run them in full precision
    sized: bool = True  # whether it is told the size; if not, it takes its own from the image


# Read in the source of diffusers 0.42.1. Where a class itself only asks for multiples of its VAE's
# scale, the patches of its transformer are counted in. CogVideoX compresses time by 4, but its VAE
# gives the asked number of frames only for an odd number of latents.
PIPELINES: Mapping[str, PipelineKind] = {
    "WanPipeline": PipelineKind("never", False, 16, 4, float32=("vae",)),
    "WanImageToVideoPipeline": PipelineKind(
        "always", False, 16, 4, float32=("vae", "image_encoder")
    ),
    "LTXPipeline": PipelineKind("never", False, 32, 8, "frame_rate"),
    "LTXImageToVideoPipeline": PipelineKind("always", False, 32, 8, "frame_rate"),
    "LTX2Pipeline": PipelineKind("never", True, 32, 8, "frame_rate"),
    "LTX2ImageToVideoPipeline": PipelineKind("always", True, 32, 8, "frame_rate"),
    "Kandinsky6TI2VAPipeline": PipelineKind("may", True, 16, 4, "frame_rate"),
    "CogVideoXPipeline": PipelineKind("never", False, 16, 8),
    "CogVideoXImageToVideoPipeline": PipelineKind("always", False, 16, 8),
    "HunyuanVideo15Pipeline": PipelineKind("never", False, 16, 4),
    "HunyuanVideo15ImageToVideoPipeline": PipelineKind("always", False, 16, 4, sized=False),
    "Kandinsky5T2VPipeline": PipelineKind("never", False, 16, 4),
    "Kandinsky5I2VPipeline": PipelineKind("always", False, 16, 4),
    "MochiPipeline": PipelineKind("never", False, 16, 6),
}
SETTINGS = {
    "pipeline", "source", "dtype", "offload", "width", "height", "frames", "fps", "arguments",
}  # fmt: skip
PINS = {"revision", "digest"}
OPTIONAL = PINS | {"tiling", "scheduler", "guider"}
TASKS = ("t2v", "i2v")
OF_A_TASK = {"pipeline", "source", "arguments", "scheduler", "guider"} | PINS
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
DIGEST = re.compile(r"[0-9a-f]{64}")
# Models are trained on a thousand steps of noise: more can't differ.
STEPS_LIMIT = 1000
GUIDANCE_LIMIT = 100.0  # published settings have 1 to 15
PIXELS_LIMIT = 8192
FRAMES_LIMIT = 60 * 60 + 1  # a minute at 60 a second
RATE_LIMIT = 240.0
NUMBER_LIMIT = 10_000.0  # of any other argument; token counts are the largest there are
# Within this a rendition fills its canvas, so that no bars tell which model made it.
ASPECT_TOLERANCE = FILL_WITHIN


def check(settings: Mapping[str, Any], request: Request) -> None:
    settings = of_task(settings, request)
    kind = _check_settings(settings)
    check_grid(settings, kind.multiple, kind.frame_step)
    _check_request(settings, kind, request)


def render(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    from generation.backends.diffusers.clip import make_clip

    check(settings, request)
    return make_clip(of_task(settings, request), request, progress)


def of_task(settings: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The settings that hold for what is asked: the task's own over those beside its table."""
    for task in TASKS:
        table = settings.get(task, {})
        if not isinstance(table, Mapping):
            raise NeverRenders(f"The setting {task} is {table!r}; it must be a table.")
        if other := set(table) - OF_A_TASK:
            raise NeverRenders(
                f"The setting {', '.join(sorted(other))} can't differ between tasks: take it out "
                f"of {task}."
            )
    common = {name: value for name, value in settings.items() if name not in TASKS}
    return {**common, **settings.get("t2v" if request.image is None else "i2v", {})}


def _check_settings(settings: Mapping[str, Any]) -> PipelineKind:
    """The settings by themselves: complete, known, and pinned to files that can't change."""
    if missing := SETTINGS - set(settings):
        raise NeverRenders(f"The diffusers setting {', '.join(sorted(missing))} is missing.")
    if unknown := set(settings) - SETTINGS - OPTIONAL:
        raise NeverRenders(
            f"Unknown diffusers setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(SETTINGS | OPTIONAL))}, t2v and i2v."
        )
    pipeline = settings["pipeline"]
    if not (isinstance(pipeline, str) and pipeline in PIPELINES):
        raise NeverRenders(
            f"The pipeline “{pipeline}” is not known here; known are {', '.join(PIPELINES)}."
        )
    _check_source(settings)
    for name, known in (("dtype", DTYPES), ("offload", OFFLOADS)):
        if settings[name] not in known:
            raise NeverRenders(
                f"The setting {name} is {settings[name]!r}; it can be {', '.join(known)}."
            )
    for name, most in (("width", PIXELS_LIMIT), ("height", PIXELS_LIMIT), ("frames", FRAMES_LIMIT)):
        _check_count(f"setting {name}", settings[name], most)
    fps = settings["fps"]
    if type(fps) not in (int, float) or not 0 < fps <= RATE_LIMIT:
        raise NeverRenders(
            f"The setting fps is {_short(fps)}; it must be a number above 0 and at most "
            f"{RATE_LIMIT:g}."
        )
    if type(settings.get("tiling", False)) is not bool:
        raise NeverRenders(f"The setting tiling is {settings['tiling']!r}; it is true or false.")
    for name in ("arguments", "scheduler", "guider"):
        if not isinstance(settings.get(name, {}), Mapping):
            raise NeverRenders(f"The setting {name} is {settings[name]!r}; it must be a table.")
    _check_arguments(settings["arguments"])
    for name in ("arguments", "scheduler", "guider"):
        _check_numbers(name, settings.get(name, {}))
    return PIPELINES[pipeline]


def _check_source(settings: Mapping[str, Any]) -> None:
    """The source has the one form or the other, and is pinned the way of its form."""
    source = settings["source"]
    if isinstance(source, str) and Path(source).is_absolute():
        pin, other, form = "digest", "revision", DIGEST
        how = f"a directory: set digest to what `python -m {__package__} {source}` prints"
    elif isinstance(source, str) and HUB_NAME.fullmatch(source):
        pin, other, form = "revision", "digest", COMMIT
        how = "on the hub: set revision to the 40 hexadecimal digits of a commit"
    else:
        raise NeverRenders(
            f"The source {source!r} is neither “org/name” on the hub nor an absolute directory."
        )
    if settings.get(other) is not None:
        raise NeverRenders(
            f"The source {source} has no {other}, because it is {how.split(':')[0]}."
        )
    value = settings.get(pin)
    if not (isinstance(value, str) and form.fullmatch(value)):
        raise NeverRenders(f"The source {source} must be pinned. It is {how}, not {value!r}.")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    if reserved := RESERVED & set(arguments):
        raise NeverRenders(
            f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
            "arguments."
        )
    # The defaults of a library change with it; the number of steps is what a version stands for.
    steps = arguments.get("num_inference_steps")
    _check_count("argument num_inference_steps", steps, STEPS_LIMIT)


def _check_count(what: str, value: Any, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise NeverRenders(
            f"The {what} is {_short(value)}; it must be a whole number from 1 to {most:,}."
        )


def _check_numbers(name: str, value: Any) -> None:
    """Every number of a table, however deep: none may be absurd, whatever its name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_numbers(name, inner)
    elif type(value) in (int, float):
        guides = "guidance_scale" in name
        least, most = (0.0, GUIDANCE_LIMIT) if guides else (-NUMBER_LIMIT, NUMBER_LIMIT)
        if not least <= value <= most:
            raise NeverRenders(
                f"The setting {name} is {_short(value)}; it must be a number from {least:,.0f} to "
                f"{most:,.0f}."
            )


def _short(value: Any) -> str:
    return repr(value)[:40]


def check_grid(settings: Mapping[str, Any], multiple: int, frame_step: int) -> None:
    """Refuse what the pipeline would round."""
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if width % multiple or height % multiple:
        raise NeverRenders(
            f"{pipeline} can't make {width}x{height}: both must be multiples of {multiple}; the "
            f"nearest are {_nearest(width, multiple)}x{_nearest(height, multiple)}."
        )
    frames = settings["frames"]
    if excess := (frames - 1) % frame_step:
        raise NeverRenders(
            f"{pipeline} can't make {frames} frames: they must be 1 more than a multiple of "
            f"{frame_step}; the nearest are {frames - excess} and {frames - excess + frame_step}."
        )


def _nearest(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


def _check_request(settings: Mapping[str, Any], kind: PipelineKind, request: Request) -> None:
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if request.image is None and kind.image == "always":
        raise CannotRender(f"{pipeline} needs a reference image: ask it for image to video only.")
    if request.image is not None and kind.image == "never":
        raise CannotRender(f"{pipeline} takes no reference image: ask it for text to video only.")
    if request.audio and not kind.sound:
        raise CannotRender(f"{pipeline} makes no sound: ask it for silent clips only.")
    wanted = ratio(request.conditions.aspect)
    if _differ(width / height, wanted):
        fitting = _nearest(height * wanted, kind.multiple)
        raise CannotRender(
            f"{width}x{height} is not {request.conditions.aspect} within {ASPECT_TOLERANCE:.0%}: "
            f"{fitting}x{height} would be nearest."
        )
    if request.image is not None:
        image_width, image_height = request.image.size
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

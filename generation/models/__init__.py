"""Models, versions, prompts and clips."""

from generation.models.catalogue import (
    CHECKS_MODEL,
    CLIP_LENGTHS,
    FRAME_RATES,
    RENDERED_STATES,
    SAME_CHECK,
    SIDE_PIXELS,
    SLUG,
    Model,
    Version,
    VersionState,
    Weights,
    is_web_link,
)
from generation.models.clips import (
    BULK_PRIORITY,
    EXPERIMENT_PRIORITY,
    FIRST_PRIORITY,
    Clip,
    ClipState,
)
from generation.models.hosted import HostedJob, JobState
from generation.models.pauses import StoragePause
from generation.models.prompts import Prompt, PromptSet, PromptSetEntry, ReferenceImage
from generation.models.uploads import RowOutcome, Upload, UploadRow, UploadState
from generation.models.workers import Worker

__all__ = [
    "BULK_PRIORITY",
    "CHECKS_MODEL",
    "CLIP_LENGTHS",
    "EXPERIMENT_PRIORITY",
    "FIRST_PRIORITY",
    "FRAME_RATES",
    "RENDERED_STATES",
    "SAME_CHECK",
    "SIDE_PIXELS",
    "SLUG",
    "Clip",
    "ClipState",
    "HostedJob",
    "JobState",
    "Model",
    "Prompt",
    "PromptSet",
    "PromptSetEntry",
    "ReferenceImage",
    "RowOutcome",
    "StoragePause",
    "Upload",
    "UploadRow",
    "UploadState",
    "Version",
    "VersionState",
    "Weights",
    "Worker",
    "is_web_link",
]

"""Weights files: safetensors with the configuration and a note in the file's own header.

Matrices are kept in 8 bits, each row with its own scale (absmax, as in LLM.int8(), arXiv
2208.07339), all else in half precision: a release of 8 million numbers is a file of 8 MB.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from generation.backends.colt.config import Config

SCALE = "::scale"
SMALL = 4096  # numbers up to which a tensor is not worth quantising


def save(parts: Mapping[str, nn.Module], path: Path, config: Config, note: dict[str, str]) -> None:
    """One file with several modules; tensors are named `part.name`."""
    tensors: dict[str, Tensor] = {}
    for part, module in parts.items():
        for name, value in module.state_dict().items():
            key, value = f"{part}.{name}", value.detach().float().cpu()
            if value.ndim < 2 or value.numel() < SMALL:
                tensors[key] = value.half().contiguous()
                continue
            rows = value.flatten(1)
            scale = rows.abs().amax(1).clamp_min(1e-8) / 127
            whole = (rows / scale[:, None]).round().to(torch.int8)
            tensors[key] = whole.view(value.shape).contiguous()
            tensors[key + SCALE] = scale
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    header = {"config": json.dumps(config.__dict__), **note}
    save_file(tensors, temporary, metadata=header)
    temporary.chmod(0o644)  # safetensors writes 0600, which other users could not read
    temporary.replace(path)


def read_config(path: Path) -> Config:
    with safe_open(path, "pt") as file:
        values: dict[str, Any] = json.loads(file.metadata()["config"])
    values["codec_widths"] = tuple(values["codec_widths"])
    return Config(**values)


def load(module: nn.Module, path: Path, part: str) -> None:
    """Puts the part's weights of a file into a module; raises KeyError for a file without them."""
    tensors, found = load_file(path), {}
    for name, old in module.state_dict().items():
        value = tensors[f"{part}.{name}"]
        if value.dtype == torch.int8:
            scale = tensors[f"{part}.{name}{SCALE}"]
            value = (value.flatten(1).float() * scale[:, None]).view(value.shape)
        found[name] = value.to(old.dtype)
    module.load_state_dict(found)

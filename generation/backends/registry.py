"""Which backends there are: found by where their files lie, loaded by name.

    generation/backends/NAME.py or NAME/backend.py   renders clips in our own workers
    generation/hosted/services/NAME.py               orders clips from a paid service
    generation/imports/backend.py                    “imported”: clips are files made elsewhere

A new backend is a new file. Names are read from the folders, so listing them imports nothing.
"""

from importlib import import_module
from pathlib import Path

from generation.backends import Backend, CannotRender, Renderer
from generation.hosted.service import Service
from generation.imports import backend as imported

GENERATION = Path(__file__).parents[1]


def _find_modules(folder: str) -> dict[str, str]:
    """The backends in a folder of generation/, by name."""
    package = f"generation.{folder.replace('/', '.')}"
    files = [file.stem for file in (GENERATION / folder).glob("*.py")]
    found = {name: f"{package}.{name}" for name in files if name not in ("__init__", "registry")}
    for file in (GENERATION / folder).glob("*/backend.py"):
        found[file.parent.name] = f"{package}.{file.parent.name}.backend"
    return dict(sorted(found.items()))


RENDERERS = _find_modules("backends")
SERVICES = _find_modules("hosted/services")
RENDERED_HERE = tuple(RENDERERS)  # what GPU workers claim
HOSTED = tuple(SERVICES)  # what hosted workers claim
IMPORTED = "imported"
BACKENDS = (*RENDERED_HERE, IMPORTED, *HOSTED)


def load_backend(name: str) -> Backend:
    """The backend of that name; loading it must not import torch."""
    if name in SERVICES:
        return load_service(name)
    if name == IMPORTED:
        return imported
    return load_renderer(name)


def load_renderer(name: str) -> Renderer:
    if name not in RENDERERS:
        raise CannotRender(f"There is no backend “{name}”; there are {', '.join(BACKENDS)}.")
    module = import_module(RENDERERS[name])
    if not isinstance(module, Renderer):
        raise TypeError(f"{RENDERERS[name]} is no backend: it needs GPU, check and render.")
    return module


def load_service(name: str) -> Service:
    if name not in SERVICES:
        raise CannotRender(f"The backend “{name}” is not hosted; hosted are {', '.join(HOSTED)}.")
    service = import_module(SERVICES[name]).SERVICE
    if not isinstance(service, Service):
        raise TypeError(f"SERVICE in {SERVICES[name]} is no Service.")
    return service

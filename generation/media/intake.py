"""Takes in a file that somebody else made: a child process reads it and writes our own master.

A file can be made to break the decoder that reads it, or to need more memory and time than there
is. So no process that knows the site's secrets decodes one. The child (generation/media/foreign.py)
gets a file, what the clip must be, and nothing of this process's environment; it has limits of
memory, time and what it may write. Afterwards only the master that it wrote is read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from generation.media.profile import EncodingError, MediaFacts, SiteFault

ROOT = Path(__file__).resolve().parents[2]
MEMORY_AT_MOST = 2 << 30  # bytes of address space, libraries and all
TAKE_IN_SECONDS = 600  # of CPU, and by the clock
WRITTEN_AT_MOST = 4 << 30  # bytes of a master; 4 billion pixels took a tenth of this
ANSWER_AT_MOST = 64 << 10  # bytes
# Where the interpreter finds its libraries; nothing else of the environment is handed on.
PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# Each arena and each thread of a library takes address space that is never used.
ONE_OF_EACH = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}


@dataclass(frozen=True)
class Wanted:
    """What a file must be to become a clip."""

    aspect: str  # as prompts have it, "16:9"
    seconds: float  # at least, less one frame
    category: str  # for sentences
    audio: bool  # else the file's sound is not looked at
    fps: tuple[float, float]  # from and to
    version: str  # for sentences
    width: int  # that the version declares
    height: int


def take_in(source: Path, master: Path, wanted: Wanted) -> MediaFacts:
    """Write a master of ours from any file; returns what was found in the file.

    Raises EncodingError with one sentence if the file is refused, and SiteFault if it could not be
    tried: a disk that is full, a process that can't be started.
    """
    request = {"source": str(source), "master": str(master), "wanted": asdict(wanted)}
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with (
        tempfile.TemporaryFile(dir=master.parent) as answer,
        tempfile.TemporaryFile(dir=master.parent) as errors,
    ):
        try:
            code = subprocess.run(
                [sys.executable, "-m", "generation.media.foreign"],
                input=json.dumps(request).encode(),
                stdout=answer,
                stderr=errors,
                cwd=ROOT,
                env=ONE_OF_EACH | environment,
                timeout=TAKE_IN_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise _too_slow(source) from None
        except OSError as error:
            raise SiteFault(f"No process can be started to read {source.name} ({error}).") from None
        said = _answer(answer)
        if "facts" in said:
            return MediaFacts(**said["facts"])
        if "refused" in said:
            raise EncodingError(said["refused"])
        if "fault" in said:
            cause = OSError(said["errno"], said["fault"]) if said.get("errno") else None
            raise SiteFault(said["fault"]) from cause
        raise _died(source, code, _tail(errors))


def _answer(file: IO[bytes]) -> dict[str, Any]:
    """What the child said, if it came to its end."""
    file.seek(0)
    try:
        said = json.loads(file.read(ANSWER_AT_MOST))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2000))
    return file.read().decode(errors="replace").strip()


def too_large(name: str) -> EncodingError:
    """What the child raises of a file when memory ends, or its parent when it died of that."""
    return EncodingError(
        f"{name} needs more than {MEMORY_AT_MOST >> 30} GB to decode: make it with fewer pixels."
    )


def _too_slow(source: Path) -> EncodingError:
    return EncodingError(
        f"{source.name} takes more than {TAKE_IN_SECONDS // 60} minutes to decode: make a shorter "
        "clip, or one of fewer pixels."
    )


def _died(source: Path, code: int, errors: str) -> EncodingError:
    """Why the child ended without an answer."""
    if -code == signal.SIGXCPU:
        return _too_slow(source)
    if "MemoryError" in errors or "Cannot allocate memory" in errors:
        return too_large(source.name)
    if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
        return EncodingError(
            f"{source.name} breaks its decoder ({signal.Signals(-code).name}): re-save it with "
            "another program."
        )
    if -code == signal.SIGKILL:
        return EncodingError(
            f"{source.name} could not be decoded, as the system ended the process that did it: "
            "check the memory of this machine, or make the clip with fewer pixels."
        )
    ended = f"{errors.splitlines()[-1]}" if errors else f"it ended with {code}"
    return SiteFault(f"The process that reads {source.name} failed ({ended}).")

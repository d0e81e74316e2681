"""What stands in the media storage."""

import logging

from django.core.files.storage import default_storage

from generation.models import Clip

log = logging.getLogger(__name__)


def has_files(clip: Clip) -> bool:
    """Whether both files are there. `withdraw_lost_clips` decides what to do if they are not:
    a request cannot tell a lost file from a storage that is away."""
    for name in (str(clip.rendition), str(clip.poster)):
        if not default_storage.exists(name):
            log.error("clip %s: the file %s is missing from the media storage", clip.pk, name)
            return False
    return True

"""Media in a bucket of an object store that speaks S3.

Voters never see its addresses: the site reads and passes on. A part of an object is read by a
request for that range (RFC 9110, section 14), so that no more leaves the store than was asked for.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from storages.backends.s3 import S3Storage
from storages.utils import clean_name

from generation.media.storage import READ_BYTES_AT_ONCE, MediaStorage, StoredFile

READ_TRIES = 3  # of an object whose connection breaks


class MediaBucket(MediaStorage, S3Storage):
    """django-storages' S3, read in parts."""

    def refusals(self) -> tuple[type[Exception], ...]:
        return (BotoCoreError, Boto3Error, ClientError, OSError)

    def read_part(self, name: str, first: int, length: int) -> Iterator[bytes]:
        """A connection that breaks is made again, for what is left."""
        item, tries = self.bucket.Object(self._key(name)), READ_TRIES
        while length > 0:
            try:
                answer = item.get(Range=f"bytes={first}-{first + length - 1}")
                if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                    raise OSError("The object store gives no parts of objects.")
                with closing(answer["Body"]) as body:
                    for piece in body.iter_chunks(READ_BYTES_AT_ONCE):
                        first, length = first + len(piece), length - len(piece)
                        yield piece
            except BotoCoreError:
                tries -= 1
                if not tries:
                    raise

    def files_under(self, prefix: str) -> Iterator[StoredFile]:
        root = f"{self.location}/" if self.location else ""
        pages = self.connection.meta.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket_name, Prefix=root + prefix
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(root)
                yield StoredFile(name, entry["Size"], entry["LastModified"])

    def free_bytes(self) -> int | None:
        return None

    def _key(self, name: str) -> Any:
        return self._normalize_name(clean_name(name))

"""Voters, known by a signed cookie."""

import uuid

from django.db import models


class Voter(models.Model):
    """Somebody who votes, known by a signed cookie."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{'simulated ' if self.simulated else ''}voter {str(self.id)[:8]}"

"""Leaderboards as pages read them: the newest snapshot, and who is ranked on it."""

from ratings.models import Leaderboard

NEW_BELOW = 100  # votes: listed apart, not ranked


def newest_board(category: str, slice_: str = "") -> Leaderboard | None:
    return Leaderboard.objects.filter(category=category, slice=slice_).order_by("-pk").first()

"""What operators do about models, prompts and clips: one module for each."""

from generation.admin import catalogue, clips, prompts

__all__ = ["catalogue", "clips", "prompts"]

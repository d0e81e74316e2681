"""Which profile made a rendition, and whether its master is far from it.

Every rendition made so far is of profile 1; `manage.py encode_again` brings them to the newest.
"""

from django.db import migrations, models
from django.db.models import Q

# As `far_from_profile` in generation/encoding.py: under half of 24 frames a second, a short side
# under half of 720 pixels, or a shape more than 4 % from the prompt's.
FORWARD = """
UPDATE generation_clip clip
SET stratum = CASE
    WHEN clip.fps < 12 OR least(clip.width, clip.height) < 360
        OR abs(clip.width::float8 / clip.height
               * split_part(prompt.aspect, ':', 2)::float8
               / split_part(prompt.aspect, ':', 1)::float8 - 1) > 0.04
    THEN 'far' ELSE 'near' END
FROM generation_prompt prompt
WHERE prompt.id = clip.prompt_id
  AND clip.width IS NOT NULL AND clip.height > 0 AND clip.fps IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0005_workers")]
    operations = [
        migrations.AddField(
            model_name="clip",
            name="stratum",
            field=models.CharField(
                max_length=4,
                choices=[("near", "Near the profile"), ("far", "Far from the profile")],
                blank=True,
                default="",
                help_text="Whether the master's frame rate, size and shape are near the "
                "rendition's.",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="clip",
            name="profile",
            field=models.PositiveIntegerField(
                default=1,
                help_text="Number of the profile of the rendition; only equals meet in battles.",
            ),
        ),
        migrations.RunSQL(FORWARD, migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["category", "version"],
                name="clip_far",
                condition=Q(state="ready", stratum="far"),
            ),
        ),
    ]

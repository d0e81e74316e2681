"""When each version first became active: until then no public page names it. And what links and
numbers of the catalogue may be, which the forms and the loader check.

Of versions that are paused or retired already, those with a vote of the public arena were active.
"""

import django.core.validators
from django.db import migrations, models

import generation.models.catalogue

BACKFILL = """
UPDATE generation_version SET activated_at = created_at WHERE state = 'active';
DO $$ BEGIN
    IF to_regclass('arena_vote') IS NOT NULL THEN
        UPDATE generation_version AS version SET activated_at = shown.since
        FROM (
            SELECT entrant.id, min(vote.cast_at) AS since
            FROM arena_vote AS vote,
                 LATERAL (VALUES (vote.version_a_id), (vote.version_b_id)) AS entrant (id)
            WHERE vote.kind = 'arena' GROUP BY entrant.id
        ) AS shown
        WHERE version.id = shown.id AND version.activated_at IS NULL;
    END IF;
END $$;
"""
FORWARD = """
CREATE FUNCTION generation_note_activation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.activated_at IS NOT NULL THEN
        NEW.activated_at := OLD.activated_at;
    ELSIF NEW.state = 'active' AND NEW.activated_at IS NULL THEN
        NEW.activated_at := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER version_activation BEFORE INSERT OR UPDATE ON generation_version
FOR EACH ROW EXECUTE FUNCTION generation_note_activation();
"""
BACKWARD = """
DROP TRIGGER version_activation ON generation_version;
DROP FUNCTION generation_note_activation();
"""


Within = generation.models.catalogue.Within


def altered(name: str, field: models.Field) -> migrations.AlterField:
    return migrations.AlterField(model_name="version", name=name, field=field)


class Migration(migrations.Migration):
    dependencies = [("generation", "0004_money")]
    operations = [
        migrations.AddField(
            model_name="version",
            name="activated_at",
            field=models.DateTimeField(
                editable=False,
                help_text="When it first became active. Before that no public page names it.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="model",
            name="links",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="A list of {label, url}.",
                validators=[generation.models.catalogue.check_links],
            ),
        ),
        altered(
            "settings",
            models.JSONField(
                blank=True, default=dict, validators=[generation.models.catalogue.check_storable]
            ),
        ),
        altered(
            "width",
            models.PositiveIntegerField(help_text="Native pixels.", validators=[Within(16, 8192)]),
        ),
        altered("height", models.PositiveIntegerField(validators=[Within(16, 8192)])),
        altered(
            "fps",
            models.FloatField(help_text="Native frames per second.", validators=[Within(1, 240)]),
        ),
        altered("min_seconds", models.FloatField(validators=[Within(0.1, 60)])),
        altered("max_seconds", models.FloatField(validators=[Within(0.1, 60)])),
        altered(
            "price_per_second",
            models.DecimalField(
                blank=True,
                decimal_places=4,
                help_text="US dollars.",
                max_digits=8,
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        altered(
            "budget",
            models.DecimalField(
                blank=True,
                decimal_places=2,
                help_text="Budget for clips of a hosted version, in US dollars. Empty means none.",
                max_digits=10,
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]

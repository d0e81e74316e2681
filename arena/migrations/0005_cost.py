"""What keeps an experiment from its verdict is noted, so that its page costs the same however many
votes there are. Changes of what is ready are noted, so that a draw need not look for them."""

import django.db.models.deletion
from django.db import migrations, models

# A row for each transaction, seen by others when its changes are. Nobody waits: rows are only added.
FORWARD = """
CREATE FUNCTION arena_note_ready_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO arena_readychange (transaction) VALUES (pg_current_xact_id()::text::bigint)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER ready_clip_made AFTER INSERT ON generation_clip FOR EACH ROW
    WHEN (NEW.state = 'ready') EXECUTE FUNCTION arena_note_ready_change();
CREATE TRIGGER ready_clip_changed AFTER UPDATE OF state ON generation_clip FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND 'ready' IN (OLD.state, NEW.state))
    EXECUTE FUNCTION arena_note_ready_change();
CREATE TRIGGER ready_clip_gone AFTER DELETE ON generation_clip FOR EACH ROW
    WHEN (OLD.state = 'ready') EXECUTE FUNCTION arena_note_ready_change();
CREATE TRIGGER ready_version_changed AFTER UPDATE ON generation_version FOR EACH ROW
    WHEN ((OLD.state, OLD.categories) IS DISTINCT FROM (NEW.state, NEW.categories))
    EXECUTE FUNCTION arena_note_ready_change();
DELETE FROM arena_pairlist;
"""
BACKWARD = """
DROP TRIGGER ready_version_changed ON generation_version;
DROP TRIGGER ready_clip_gone ON generation_clip;
DROP TRIGGER ready_clip_changed ON generation_clip;
DROP TRIGGER ready_clip_made ON generation_clip;
DROP FUNCTION arena_note_ready_change();
"""


class Migration(migrations.Migration):
    dependencies = [("arena", "0004_money")]
    operations = [
        migrations.CreateModel(
            name="ObstacleNote",
            fields=[
                (
                    "experiment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="obstacle_note",
                        serialize=False,
                        to="arena.experiment",
                    ),
                ),
                ("obstacles", models.JSONField(help_text="Of each its code and its sentence.")),
                (
                    "out_of_clips",
                    models.BooleanField(
                        help_text="Each pair that is left has a clip that failed."
                    ),
                ),
                ("looked_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="ReadyChange",
            fields=[
                ("transaction", models.BigIntegerField(primary_key=True, serialize=False)),
            ],
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AddIndex(
            model_name="experiment",
            index=models.Index(fields=["-created_at"], name="experiment_newest"),
        ),
        migrations.AddIndex(
            model_name="experiment",
            index=models.Index(
                fields=["state", "-created_at"], name="experiment_newest_of_state"
            ),
        ),
    ]

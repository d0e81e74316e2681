"""What the database itself holds: what determines a version's clips is frozen once it has some, and
the time of an error is written with it, whoever writes it."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION generation_refuse_frozen_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM generation_clip WHERE version_id = OLD.id) THEN
        RAISE EXCEPTION 'The version % has clips and is frozen: enter the change as a new version.',
            OLD.slug USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER version_frozen BEFORE UPDATE ON generation_version FOR EACH ROW
WHEN ((OLD.model_id, OLD.parent_id, OLD.backend, OLD.settings, OLD.width, OLD.height, OLD.fps)
      IS DISTINCT FROM
      (NEW.model_id, NEW.parent_id, NEW.backend, NEW.settings, NEW.width, NEW.height, NEW.fps))
EXECUTE FUNCTION generation_refuse_frozen_version();
CREATE FUNCTION generation_refuse_frozen_prompt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM generation_clip WHERE prompt_id = OLD.id) THEN
        RAISE EXCEPTION 'The prompt % has clips and is frozen: give the new wording a new key.',
            OLD.key USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER prompt_frozen BEFORE UPDATE ON generation_prompt FOR EACH ROW
WHEN ((OLD.key, OLD.text, OLD.image_id, OLD.aspect, OLD.seconds)
      IS DISTINCT FROM (NEW.key, NEW.text, NEW.image_id, NEW.aspect, NEW.seconds))
EXECUTE FUNCTION generation_refuse_frozen_prompt();
CREATE FUNCTION generation_note_failure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.error = '' THEN
        NEW.failed_at := NULL;
    ELSIF TG_OP = 'INSERT' OR NEW.error <> OLD.error
        OR (NEW.state <> OLD.state AND NEW.state IN ('waiting', 'failed')) THEN
        NEW.failed_at := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER clip_failure BEFORE INSERT OR UPDATE OF state, error ON generation_clip
FOR EACH ROW EXECUTE FUNCTION generation_note_failure();
"""
BACKWARD = """
DROP TRIGGER clip_failure ON generation_clip;
DROP FUNCTION generation_note_failure();
DROP TRIGGER prompt_frozen ON generation_prompt;
DROP FUNCTION generation_refuse_frozen_prompt();
DROP TRIGGER version_frozen ON generation_version;
DROP FUNCTION generation_refuse_frozen_version();
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

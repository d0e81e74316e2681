"""The ledger is append-only for everybody; the site's role lacks the right as well (arena/ledger.py).
What an experiment fixes beforehand the database keeps fixed."""

from django.db import migrations

TABLES = ("arena_vote", "arena_skip", "arena_exclusion", "arena_defect")
# Statement triggers run before a row gets its number, so whoever holds the exclusive lock for an
# instant (arena/ledger.py) knows that no number below the last is still to come.
LEDGER_LOCK = 7_301_001
FORWARD = f"""
CREATE FUNCTION arena_refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND current_setting('photofinish.allow_truncate', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'The ledger is append-only: % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
        HINT = 'Record an exclusion instead.';
END $$;
CREATE FUNCTION arena_order_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LEDGER_LOCK});
    RETURN NULL;
END $$;
""" + "".join(
    f"""
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW
    EXECUTE FUNCTION arena_refuse_ledger_change();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
    EXECUTE FUNCTION arena_refuse_ledger_change();
CREATE TRIGGER in_order BEFORE INSERT ON {table} FOR EACH STATEMENT
    EXECUTE FUNCTION arena_order_ledger();
"""
    for table in TABLES
) + """
CREATE FUNCTION arena_refuse_experiment_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The experiment % is frozen: start another one.', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER experiment_frozen BEFORE UPDATE ON arena_experiment FOR EACH ROW
WHEN (to_jsonb(OLD) - 'state' IS DISTINCT FROM to_jsonb(NEW) - 'state')
EXECUTE FUNCTION arena_refuse_experiment_change();
CREATE TRIGGER block_frozen BEFORE UPDATE ON arena_block FOR EACH STATEMENT
EXECUTE FUNCTION arena_refuse_ledger_change();
"""
BACKWARD = (
    """
DROP TRIGGER block_frozen ON arena_block;
DROP TRIGGER experiment_frozen ON arena_experiment;
DROP FUNCTION arena_refuse_experiment_change();
"""
    + "".join(
        f"DROP TRIGGER {name} ON {table};\n"
        for table in TABLES
        for name in ("append_only", "keep_all", "in_order")
    )
    + "DROP FUNCTION arena_refuse_ledger_change(); DROP FUNCTION arena_order_ledger();"
)


class Migration(migrations.Migration):
    dependencies = [("arena", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

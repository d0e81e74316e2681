"""The ledger is append-only for everybody; the site's role lacks the right as well (ledger.py)."""

from django.db import migrations

TABLES = ("arena_vote", "arena_skip", "arena_exclusion")
FORWARD = """
CREATE FUNCTION arena_refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The ledger is append-only: % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
        HINT = 'Record an exclusion instead.';
END $$;
""" + "".join(
    f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW"
    " EXECUTE FUNCTION arena_refuse_ledger_change();\n"
    for table in TABLES
)
BACKWARD = (
    "".join(f"DROP TRIGGER append_only ON {table};\n" for table in TABLES)
    + "DROP FUNCTION arena_refuse_ledger_change();"
)


class Migration(migrations.Migration):
    dependencies = [("arena", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

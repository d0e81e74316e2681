"""What a request costs the database: its queries, and the rows that these read."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection
from django.test.utils import CaptureQueriesContext

# Rows that sequential scans gave, and those fetched through indexes, since the transaction began:
# PostgreSQL counts them as it reads them, whether or not a query keeps them. Entries of indexes are
# not counted: those of the tests before, which were rolled back, are among them.
READ_SO_FAR = """
    SELECT coalesce(of_table.relname, relation.relname),
        sum(CASE relation.relkind
            WHEN 'r' THEN pg_stat_get_xact_tuples_returned(relation.oid) ELSE 0 END
            + pg_stat_get_xact_tuples_fetched(relation.oid))::bigint
    FROM pg_class relation
    LEFT JOIN pg_index ON pg_index.indexrelid = relation.oid
    LEFT JOIN pg_class of_table ON of_table.oid = pg_index.indrelid
    WHERE relation.relnamespace = 'public'::regnamespace AND relation.relkind IN ('r', 'i')
    GROUP BY 1
"""


@dataclass
class Cost:
    """Of what ran within `count_cost`."""

    queries: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)  # read of each table and its indexes


def _read_so_far() -> Counter[str]:
    with connection.cursor() as cursor:
        cursor.execute(READ_SO_FAR)
        return Counter(dict(cursor.fetchall()))


@contextmanager
def count_cost() -> Iterator[Cost]:
    """Counts within the test's own transaction; tests with `transaction=True` have none."""
    assert connection.in_atomic_block
    cost, before = Cost(), _read_so_far()
    with CaptureQueriesContext(connection) as captured:
        yield cost
    cost.queries = [query["sql"] for query in captured]
    cost.rows = _read_so_far() - before


def cost_of(what: Callable[[], object]) -> Cost:
    """Of the second time: the first may fill what is kept between requests.

    The database knows how large its tables are, as on a site, and reads even the smallest through
    an index where it has one that helps, as it does with large ones.
    """
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SET LOCAL enable_seqscan = off")
    what()
    with count_cost() as cost:
        what()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = on")
    return cost

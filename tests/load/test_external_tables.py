"""What the statements for external tables rely on; what they say: ``test_ddl.py``."""

from etl.load.tables import columns_of
from etl.model import schema

RESERVED = """
account all alter and any as between by case cast check column connect connection constraint create cross
current current_date current_time current_timestamp current_user database delete distinct drop else exists false
following for from full grant group gscluster having ilike in increment inner insert intersect into is issue join
lateral left like localtime localtimestamp minus natural not null of on or order organization qualify regexp
revoke right rlike row rows sample schema select set some start table tablesample then to trigger true try_cast
union unique update using values view when whenever where with
"""  # Snowflake's list


def test_names_that_are_not_quoted_are_no_reserved_words():
    """In the other dialects, columns are quoted."""
    assert not set(RESERVED.split()) & {
        *schema.TABLES,
        *(column.name for table in schema.TABLES.values() for column in columns_of(table)),
    }

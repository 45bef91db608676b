"""Run by the python of .venv-readers: SQL in, rows out, as JSON over standard input and output.

Takes ``{warehouse, statements, queries: {name: sql}}``; gives ``{name: [row, …]}``, times and dates as texts, in UTC.
"""

import json
import sys
from datetime import UTC, datetime

from pyspark.sql import SparkSession


def as_text(value: object) -> str:
    """PySpark gives times without a zone, in that of the process."""
    return str(value.astimezone(UTC) if isinstance(value, datetime) else value)


job = json.load(sys.stdin)
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.sql.warehouse.dir", job["warehouse"])
    .config("spark.sql.session.timeZone", "UTC")
    .getOrCreate()
)
for statement in job["statements"]:
    spark.sql(statement)
answers = {name: [row.asDict() for row in spark.sql(query).collect()] for name, query in job["queries"].items()}
json.dump(answers, sys.stdout, default=as_text)
spark.stop()

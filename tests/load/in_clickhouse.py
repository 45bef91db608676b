"""Run by the python of .venv-readers: SQL in, rows out, as JSON over standard input and output.

Takes ``{warehouse, statements, queries: {name: sql}}``; gives ``{name: [row, …]}``, times and dates as texts, in UTC.
"""

import json
import sys

from chdb.session import Session

job = json.load(sys.stdin)
clickhouse = Session(job["warehouse"])
for statement in job["statements"]:
    clickhouse.query(statement)
answers = {name: clickhouse.query(query, "ArrowTable").to_pylist() for name, query in job["queries"].items()}
json.dump(answers, sys.stdout, default=str)
clickhouse.close()

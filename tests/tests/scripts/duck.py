"""Answers of DuckDB: statements are in the file that is named, parted by ;, and each answer goes out as lines of JSON, after a line that has #."""

import json
import sys

import duckdb

duckdb.sql("SET TimeZone = 'UTC'")
for statement in open(sys.argv[1]).read().split(";\n"):
    if not statement.strip():
        continue
    print("#")
    answer = duckdb.sql(statement)
    if answer is None:
        continue
    names = answer.columns
    for row in answer.fetchall():
        print(json.dumps(dict(zip(names, row)), default=str))

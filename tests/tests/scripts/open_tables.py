#!/usr/bin/env python3
"""Opens Delta tables with deltalake, one a line of standard input, and says how each fares.

For each line `TABLE` or `TABLE rows` prints the version, or `ERROR` and why. With `rows` all rows are read too,
and no two may have the same (lsn, seq).
"""

import sys

from deltalake import DeltaTable


def look(table, rows):
    delta = DeltaTable(table)
    if rows:
        found = delta.to_pyarrow_table(columns=["lsn", "seq"])
        numbers = list(zip(found["lsn"].to_pylist(), found["seq"].to_pylist()))
        if len(numbers) != len(set(numbers)):
            raise ValueError("two rows have the same (lsn, seq)")
    return delta.version()


def main():
    for line in sys.stdin:
        table, _, rows = line.rstrip("\n").partition(" ")
        try:
            print(look(table, rows == "rows"), flush=True)
        except Exception as error:  # whatever it is, the caller wants to hear of it and go on
            print("ERROR", repr(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Tries to change a pond's table with deltalake, in every way that writes; each must be refused.

    refused.py TABLE

Prints one line a way: its name, and the refusal or "DONE".
"""

import sys

from deltalake import DeltaTable, write_deltalake


def main():
    table = sys.argv[1]
    data = DeltaTable(table).to_pyarrow_table().slice(0, 1)
    ways = {
        "append": lambda: write_deltalake(table, data, mode="append"),
        "overwrite": lambda: write_deltalake(table, data, mode="overwrite"),
        "delete": lambda: DeltaTable(table).delete(),
        "update": lambda: DeltaTable(table).update(updates={"uid": "7"}),
        "compact": lambda: DeltaTable(table).optimize.compact(),
        "restore": lambda: DeltaTable(table).restore(0),
        "vacuum": lambda: DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True),
    }
    for name, way in ways.items():
        try:
            way()
            print(f"{name}: DONE")
        except Exception as refusal:  # whatever it raises is a refusal
            print(f"{name}: {type(refusal).__name__}: {refusal}".replace("\n", " "))


if __name__ == "__main__":
    main()

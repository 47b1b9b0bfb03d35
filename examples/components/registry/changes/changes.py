"""Writes a line for each row that it is given: who reads only what was changed
since the last run keeps a journal so."""

import csv
import json
import os
import pathlib
import sys

DATA = pathlib.Path(os.environ.get("KBC_DATADIR", "/data/"))

state = json.loads((DATA / "in/state.json").read_text())
run = state.get("runs", 0) + 1
changed = 0
csv.field_size_limit(sys.maxsize)
with open(DATA / "out/tables/changes.csv", "w", encoding="utf-8", newline="") as g:
    writer = csv.writer(g)
    writer.writerow(["run", "country", "year", "population"])
    for path in sorted((DATA / "in/tables").glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as f:
            for row in csv.DictReader(f):
                writer.writerow([run, row["country"], row["year"], row["population"]])
                changed += 1
(DATA / "out/state.json").write_text(json.dumps({"runs": run}))
print(f"run {run}: {changed} rows were changed")

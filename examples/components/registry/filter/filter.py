"""A processor that keeps the rows whose value in a column is in a range.

parameters: {"column": NAME, "from": NUMBER, "to": NUMBER}; either end may be
left out. A table without the column passes as it is. A processor has to hand
on everything that the next step is to see, manifests too.
"""

import csv
import json
import os
import pathlib
import shutil
import sys

DATA = pathlib.Path(os.environ.get("KBC_DATADIR", "/data/"))


def keep(source, target, column, low, high):
    kept = seen = 0
    with open(source, encoding="utf-8", newline="") as f, open(target, "w", encoding="utf-8", newline="") as g:
        reader, writer = csv.reader(f), csv.writer(g)
        header = next(reader)
        writer.writerow(header)
        at = header.index(column)
        for row in reader:
            seen += 1
            if low <= float(row[at]) <= high:
                writer.writerow(row)
                kept += 1
    print(f"{source.name}: kept {kept} of {seen} rows")


def columns(path):
    with open(path, encoding="utf-8", newline="") as f:
        return next(csv.reader(f), [])


def main():
    parameters = json.loads((DATA / "config.json").read_text())["parameters"]
    column = parameters.get("column")
    if not column:
        sys.exit("the parameter column is missing")
    low, high = float(parameters.get("from", "-inf")), float(parameters.get("to", "inf"))
    for folder in ("tables", "files"):
        for source in (DATA / "in" / folder).iterdir():
            target = DATA / "out" / folder / source.name
            if folder == "tables" and source.suffix == ".csv" and column in columns(source):
                keep(source, target, column, low, high)
            elif source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)


main()

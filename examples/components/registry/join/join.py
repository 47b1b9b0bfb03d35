"""Joins a table of populations with one of country codes.

A component for the contract of docs/components.md, with nothing but Python's
standard library: it reads config.json and in/tables of the folder that
KBC_DATADIR names, and writes out/tables, out/state.json and out/usage.json.

It exits with 1 and a message on stderr where the user can mend it, and with 2
where only its author can.
"""

import csv
import json
import os
import pathlib
import re
import sys
import traceback

DATA = pathlib.Path(os.environ.get("KBC_DATADIR", "/data/"))
CODES = "country-codes.csv"
COLUMNS = ["country", "year", "name", "region", "subregion", "capital", "population"]


class UserError(Exception):
    """What the person who wrote the configuration can mend."""


def rows(path):
    """Yields a table's rows, with column names as databases have them."""
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.reader(f)
        header = [re.sub(r"\W", "_", name) for name in next(reader)]
        for row in reader:
            yield dict(zip(header, row))


def column(row, name, path):
    if name not in row:
        raise UserError(f"table {path.name} has no column {name}; it has {', '.join(row)}")
    return row[name]


def countries(path):
    """Returns the countries by their code of three letters."""
    found = {}
    for row in rows(path):
        code = column(row, "ISO3166_1_Alpha_3", path)
        found[code] = [row.get(c, "") for c in ("CLDR_display_name", "Region_Name", "Sub_region_Name", "Capital")]
    return found


def join(tables, out, known):
    """Writes the joined table and returns its rows and the codes of no country."""
    written, unknown = 0, set()
    with open(out, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(COLUMNS)
        for path in tables:
            for row in rows(path):
                code = column(row, "Country_Code", path)
                if code not in known:
                    unknown.add(code)
                    continue
                name, region, subregion, capital = known[code]
                writer.writerow([code, column(row, "Year", path), name, region, subregion, capital, column(row, "Value", path)])
                written += 1
    return written, unknown


def main():
    config = json.loads((DATA / "config.json").read_text())
    output = config["parameters"].get("output", "population.csv")
    tables = sorted(p for p in (DATA / "in/tables").glob("*.csv") if p.name != CODES)
    codes = DATA / "in/tables" / CODES
    if not tables or not codes.exists():
        raise UserError(f"map a table of populations and {CODES} in")

    written, unknown = join(tables, DATA / "out/tables" / output, countries(codes))
    (DATA / "out/tables" / (output + ".manifest")).write_text(json.dumps({
        "incremental": True,
        "primary_key": ["country", "year"],
        "metadata": [{"key": "KBC.description", "value": "Population by country and year"}],
    }))

    state = json.loads((DATA / "in/state.json").read_text())
    (DATA / "out/state.json").write_text(json.dumps({"rows": written}))
    (DATA / "out/usage.json").write_text(json.dumps([{"metric": "rows", "value": written}]))
    print(f"{written} rows of {len(tables)} table(s); {state.get('rows', 'none')} at the last run")
    print(f"left out {len(unknown)} codes of regions and groups, such as {', '.join(sorted(unknown)[:3])}")


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(2)

#!/bin/sh
# Prints the tables that it is given, their rows in order.
set -eu
cd "${KBC_DATADIR:-/data/}in/tables"
for table in *.csv; do
	echo "== $table"
	head -n 1 "$table"
	tail -n +2 "$table" | LC_ALL=C sort
done

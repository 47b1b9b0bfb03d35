// Package sql keeps components' tables and files in a database: PostgreSQL 12
// or later, or one file of SQLite.
//
// # Where things are
//
// In PostgreSQL a bucket is a schema of its name, such as "in.c-main", and a
// table is a table in it. In SQLite a table is called by its whole id. Columns
// are text, never null, unless a load gives types (PostgreSQL only). Everything
// else, which is what is known of tables, the loads that are done, files in
// chunks, documents, is in the schema "caisson" of PostgreSQL, and in tables
// called "caisson_..." of SQLite; its version is written there, and an older
// one is brought up to date by the first call that writes.
//
// Tables have one more column, "_timestamp": when a row was loaded, or last
// changed by a load. It is no column of the table for components. Only loads
// keep it: rows that somebody else changes in the database keep their time.
//
// # Tables of others
//
// A table or view that Caisson did not make can be read if it is where a table
// of its id would be: an operator shows components what they may see by putting
// a view into a schema called like a bucket. Nothing else in the database can be
// reached. It has no "_timestamp" of ours, so that changed_since is refused, and
// loads into it are refused.
//
// # Null
//
// CSV has no null. An empty value is the empty text; in a column whose type is
// not STRING it is null. Null is read as an empty value.
//
// # Loads
//
// A load is one transaction, under a lock of its table, and its ID is written in
// it: whoever is killed leaves the table as it was, and whoever repeats the load
// learns that it is done. Rows that replace all others go straight into the
// table (other readers of PostgreSQL wait until the load ends); rows that are
// merged go through a temporary table. Values that a merge does not change keep
// their row's time.
//
// # Rights
//
// For PostgreSQL the user needs CREATE on the database, for schemas, or schemas
// of its own that exist already. A user who may only read can export and list.
// What PostgreSQL's own settings (PGPASSWORD, PGSSLMODE, a password file, ...)
// say holds where the URL does not say it.
package sql

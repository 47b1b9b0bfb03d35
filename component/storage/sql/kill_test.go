package sql_test

import "os"

const killVariable = "CAISSON_TEST_SQL_KILL"

func loadUntilKilled() { os.Exit(1) }

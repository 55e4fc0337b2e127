#!/bin/sh
# SPDX-License-Identifier: MIT
# Puts the lines that the benchmarks wrote, BUILD/bench-keys/*.keys, into BUILD/bench.json.
# Usage: merge.sh BUILD-DIR
set -e
cat "$1"/bench-keys/*.keys | awk 'BEGIN {print "{"}
	NR > 1 {print line ","}
	{line = $0}
	END {print line; print "}"}' > "$1/bench.json"

#!/bin/sh
# check.sh STATUS TEXT PROGRAM ARGUMENT...: the program must end with STATUS, and what it prints must contain a line that
# matches TEXT (a basic regular expression).
set -u
status=$1 text=$2
shift 2
output=$("$@" 2>&1 </dev/null)
actual=$?
printf '%s\n' "$output"
if [ "$actual" -ne "$status" ]; then
  echo "check.sh: the exit status is $actual, not $status" >&2
  exit 1
fi
if ! printf '%s\n' "$output" | grep -q -e "$text"; then
  echo "check.sh: no line matches: $text" >&2
  exit 1
fi

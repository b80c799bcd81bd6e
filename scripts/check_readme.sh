#!/bin/sh
# Fails where the README's first program is not the one in examples/first.cpp, which is compiled and run.
set -eu
cd "$(dirname "$0")/.."
shown=$(sed -n '/^```cpp$/,/^```$/{/^```/!p}' README.md)
compiled=$(sed -n '/\[first-program\]/,/\[first-program\]/{/first-program/!p}' examples/first.cpp)
[ -n "$shown" ] && [ "$shown" = "$compiled" ] || {
  echo "README.md's first program and examples/first.cpp differ:" >&2
  printf '%s\n' "$shown" >"${TMPDIR:-/tmp}/readme_program.$$"
  printf '%s\n' "$compiled" | diff "${TMPDIR:-/tmp}/readme_program.$$" - >&2 || true
  rm -f "${TMPDIR:-/tmp}/readme_program.$$"
  exit 1
}

#!/bin/sh
# check_pair.sh COMPILER INCLUDE_FOLDER PRECOMPILED FILE: the good half of FILE compiles; the bad half doesn't, and the first
# error that the compiler prints contains the text of the file's first line, "// expect: text".
#
# check_pair.sh COMPILER INCLUDE_FOLDER PRECOMPILED: makes PRECOMPILED.gch of the whole library, so that it is read once and
# not for both halves of every pair.
set -u
compiler=$1 include=$2 precompiled=$3 file=${4:-}
LC_ALL=C
export LC_ALL
if [ -z "$file" ]; then
  exec "$compiler" -std=c++20 -pthread -w -I "$include" -x c++-header "$include/effinfer/effinfer.hpp" -o "$precompiled.gch"
fi

expected=$(sed -n '1s|^// expect: ||p' "$file")
if [ -z "$expected" ]; then
  echo "$file: the first line must read '// expect: <text of the error>'" >&2
  exit 1
fi

compile() {
  grep -q '^#include <effinfer/effinfer.hpp>' "$file" && set -- -include "$precompiled" "$@"
  "$compiler" -std=c++20 -pthread -fsyntax-only -I "$include" "$@" "$file" 2>&1
}

if ! output=$(compile); then
  printf '%s: the good half does not compile:\n%s\n' "$file" "$output" >&2
  exit 1
fi
if output=$(compile -DEFFINFER_BAD -Wfatal-errors); then # the first is the one that counts
  echo "$file: the bad half compiles" >&2
  exit 1
fi
first=$(printf '%s\n' "$output" | grep -m1 'error:')
case $first in
  *"$expected"*) echo "$first" ;;
  *)
    printf '%s: the first error is\n  %s\nbut must contain\n  %s\nThe whole output:\n%s\n' \
      "$file" "$first" "$expected" "$output" >&2
    exit 1
    ;;
esac

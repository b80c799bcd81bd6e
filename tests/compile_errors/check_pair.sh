#!/bin/sh
# check_pair.sh COMPILER FILE INCLUDE_FOLDER: the good half of FILE compiles; the bad half doesn't, and the first error
# that the compiler prints contains the text of the file's first line, "// expect: text".
set -u
compiler=$1 file=$2 include=$3
LC_ALL=C
export LC_ALL

expected=$(sed -n '1s|^// expect: ||p' "$file")
if [ -z "$expected" ]; then
  echo "$file: the first line must read '// expect: <text of the error>'" >&2
  exit 1
fi

compile() {
  "$compiler" -std=c++20 -pthread -fsyntax-only -I "$include" "$@" "$file" 2>&1
}

if ! output=$(compile); then
  printf '%s: the good half does not compile:\n%s\n' "$file" "$output" >&2
  exit 1
fi
if output=$(compile -DEFFINFER_BAD); then
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

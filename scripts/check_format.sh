#!/bin/sh
# Fails and names the places where clang-format 14 would change a C++ file. `check_format.sh --fix` changes them.
set -eu
cd "$(dirname "$0")/.."
format=$(command -v clang-format-14 || command -v clang-format)
case $("$format" --version) in
  *"version 14."*) ;;
  *)
    echo "clang-format 14 is needed (others lay out differently); this is: $("$format" --version)" >&2
    exit 1
    ;;
esac
if [ "${1:-}" = --fix ]; then
  arguments="-i"
else
  arguments="--dry-run -Werror --ferror-limit=3"
fi
find include compiled tests examples bench -type f \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' \) \
  -print0 | sort -z | xargs -0 "$format" --style=file $arguments

#!/bin/sh
# Prints how many compilers to run at a time: one a core, but no more than one for each 1.5 GiB of free memory.
# EFFINFER_JOBS overrides it.
set -eu
if [ -n "${EFFINFER_JOBS:-}" ]; then
  echo "$EFFINFER_JOBS"
  exit 0
fi
cores=$(nproc)
kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null || true)
jobs=$((${kib:-1572864} / 1572864))
[ "$jobs" -lt "$cores" ] || jobs=$cores
[ "$jobs" -ge 1 ] || jobs=1
echo "$jobs"

#!/bin/sh
# Runs every test; installs what is missing first. Any failure makes the exit status 1; the last line counts.
#
#   tests/run.sh           all of it
#   tests/run.sh --quick   the tests of the library with g++ alone: no sanitizers, fuzzing, outside programs or linting
#
# The parts, each a CMake preset that also runs by itself (cmake --workflow --preset tests):
#   tests    every test program but simt; headers alone, compile errors, outside programs, formatting, linting
#   address  every test program but simt_models, with clang, the address and undefined-behaviour sanitizers and the
#            assertions of libstdc++; and each parser of untrusted bytes fuzzed for ten seconds
#   thread   those that run threads, with the thread sanitizer
#   aarch64  what an instruction set could change, for Arm under qemu: with all extensions, and without any
set -u
cd "$(dirname "$0")/.." || exit 1

quick=false
case ${1:-} in
  "") ;;
  --quick) quick=true ;;
  *)
    sed -n '2,13s/^# \{0,1\}//p' tests/run.sh
    exit 2
    ;;
esac

packages="g++ cmake ninja-build pkg-config rapidjson-dev libpcre2-dev libutf8proc-dev libcli11-dev doctest-dev libboost-context-dev"
$quick || packages="$packages clang libclang-rt-dev clang-format clang-tidy"
other_architecture=false # on Arm the first part has its sets
$quick || [ "$(uname -m)" = aarch64 ] || other_architecture=true
$other_architecture && packages="$packages g++-aarch64-linux-gnu qemu-user"
scripts/install_missing.sh $packages || exit 1

jobs=$(scripts/jobs.sh)
folder=build/test_logs
mkdir -p $folder
passed=0
failed=0
began=$(date +%s)

# Address randomization with many bits is more than the sanitizers of clang 14 can place their shadow memory around.
fixed_addresses=""
setarch -R true 2>/dev/null && fixed_addresses="setarch -R"

# part PRESET TARGET [CTEST ARGUMENT]...: configures, builds and tests a preset, and adds up what its last lines say.
part() {
  preset=$1
  target=$2
  shift 2
  log=$folder/$preset.log
  started=$(date +%s)
  echo "== $preset: building"
  if ! { cmake --preset "$preset" ${option:+"$option"} && cmake --build --preset "$preset" --target "$target" --parallel "$jobs"; } >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "== $preset: FAILED TO BUILD"
    failed=$((failed + 1))
    return
  fi
  built=$(date +%s)
  echo "== $preset: testing (built in $((built - started)) s)"
  $fixed_addresses ctest --preset "$preset" --parallel "$jobs" "$@" >"$log" 2>&1
  status=$?
  counts=$(sed -n 's/^.*% tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$log")
  if [ -z "$counts" ]; then
    cat "$log"
    failed=$((failed + 1))
    return
  fi
  bad=${counts% *}
  passed=$((passed + ${counts#* } - bad))
  failed=$((failed + bad))
  if [ "$status" -ne 0 ]; then
    grep -v ' Passed  *[0-9.]* sec$\|^  *Start ' "$log"
    [ "$bad" -gt 0 ] || failed=$((failed + 1))
  fi
  echo "== $preset: $((${counts#* } - bad)) passed, $bad failed (tested in $(($(date +%s) - built)) s)"
}

option=""
if $quick; then
  option=-DEFFINFER_TESTS_LEFT_OUT=
  part tests test_programs --label-regex '^unit$'
else
  part tests all
  part address all
  part thread threaded_tests
fi
if $other_architecture; then
  part aarch64 kernel_tests
  # Attention has no use for extensions: once is enough.
  export QEMU_CPU=cortex-a72
  part aarch64 kernel_tests --exclude-regex '^attention$'
  unset QEMU_CPU
fi

echo "Took $(($(date +%s) - began)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

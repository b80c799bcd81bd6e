#!/bin/sh
# On a machine with a CUDA device: builds, checks every kernel on the device, and times everything beside the device's limits. About
# ten minutes with 16 cores. Needs nvcc, g++ and doctest; uses compute-sanitizer and PyTorch where they are.
#
#   bench/gpu/run.sh [folder for what is built and measured; build/gpu] [layers of the timed model; 8]
#   ARCHITECTURE=90a bench/gpu/run.sh --build-only ...     without a device: compiles
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build_only=0
if [ "${1:-}" = --build-only ]; then
  build_only=1
  shift
fi
out=${1:-$root/build/gpu}
layers=${2:-8}
mkdir -p "$out"
architecture=${ARCHITECTURE:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)}
if [ "$architecture" = 90 ]; then architecture=90a; fi

# As many at once as there are cores; each says what nvcc said where it fails.
export root out architecture
tests="kernels products sampling prefill caches linear"
if [ "$architecture" = 90a ]; then tests="$tests prefill_wgmma products_wgmma"; fi
{
  echo time bench/gpu/time.cu
  for test in $tests; do echo "test_$test" "tests/simt/$test.cpp"; done
  echo check_model bench/gpu/check_model.cu
} | xargs -P "${JOBS:-$(nproc)}" -n 2 sh -c '
  nvcc -x cu -std=c++20 -O3 --expt-relaxed-constexpr -gencode "arch=compute_$architecture,code=sm_$architecture" \
    -I "$root/bench/gpu" -I "$root/tests" -I "$root/include" -c "$root/$1" -o "$out/$0.o" >"$out/$0.log" 2>&1 ||
    { cat "$out/$0.log" >&2; exit 255; }'
nvcc -std=c++20 -O2 -c "$root/bench/gpu/test_main.cpp" -o "$out/test_main.o"
objects=""
for test in $tests main; do objects="$objects $out/test_$test.o"; done
# shellcheck disable=SC2086
nvcc $objects -o "$out/kernel_tests"
nvcc "$out/check_model.o" -o "$out/check_model"
nvcc "$out/time.o" -o "$out/time" -lcublasLt
echo "built for sm_$architecture in $out"
if [ $build_only = 1 ]; then exit 0; fi

failed=0
echo "== every kernel against the CPU's functions"
timeout 150 "$out/kernel_tests" || failed=1
echo "== the shipped models"
timeout 60 "$out/check_model" "$root/models/shakespeare-llama" "$root/models/shakespeare-linear" || failed=1
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    echo "== compute-sanitizer $tool"
    timeout 60 compute-sanitizer --tool $tool --error-exitcode 1 "$out/check_model" "$root/models/shakespeare-llama" "$root/models/shakespeare-linear" \
      >"$out/$tool.log" 2>&1 && echo "clean" || { echo "see $out/$tool.log (or it took more than a minute)"; failed=1; }
  done
fi
echo "== times"
timeout 240 "$out/time" "$layers" | tee "$out/times.txt"
if python3 -c "import torch; assert torch.cuda.is_available()" 2>/dev/null; then
  timeout 60 python3 "$root/bench/gpu/time_torch.py" | tee -a "$out/times.txt" || true
fi
exit $failed

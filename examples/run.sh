#!/bin/sh
# Lets a model write: installs what is missing, builds the example `generate`, and runs it with the small model that
# ships with effinfer. With arguments, runs `generate` with them instead:
#
#   examples/run.sh
#   examples/run.sh --model path/to/checkpoint --prompt "Once upon a time" --max-tokens 64
#   examples/run.sh --help
set -eu
caller=$PWD
cd "$(dirname "$0")/.."
root=$PWD

scripts/install_missing.sh g++ cmake ninja-build rapidjson-dev libpcre2-dev libutf8proc-dev libcli11-dev

log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ -x build/release/examples/generate ] || echo "Building the example generate (about a minute) ..." >&2
if ! { cmake --preset release && cmake --build --preset release --target generate --parallel "$(scripts/jobs.sh)"; } \
  >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi

cd "$caller" # paths in the arguments are the caller's
if [ $# -gt 0 ]; then
  "$root/build/release/examples/generate" "$@"
else
  echo '$ generate --model models/shakespeare-llama --prompt "ROMEO:" --max-tokens 200' >&2
  "$root/build/release/examples/generate" --model "$root/models/shakespeare-llama" --prompt "ROMEO:" --max-tokens 200
fi

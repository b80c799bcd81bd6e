#!/bin/sh
# install_missing.sh PACKAGE...: installs those Debian packages that are not there yet; quick and silent when nothing
# is missing. Needs root or sudo; where there is neither, it prints the command to run and fails.
set -eu

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "This is not Debian or Ubuntu, so nothing is installed. Needed, by their Debian names: $*" >&2
  exit 0 # what is there may do; CMake names what isn't
fi

missing=""
for package in "$@"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  as_root="sudo"
else
  echo "These packages are missing, and there is neither root nor sudo to install them. Run as root:" >&2
  echo "  apt-get update && apt-get install --no-install-recommends$missing" >&2
  exit 1
fi

echo "Installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update &&
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
  </dev/null >"$log" 2>&1; then
  cat "$log" >&2
  echo "Could not install:$missing" >&2
  exit 1
fi

#!/usr/bin/env bash
# A Chromium for the tests of the report: browser.sh prints QUANTGATE_CHROMIUM=PATH on stdout, all else on stderr.
# The one that QUANTGATE_CHROMIUM names, else one that is installed, else Debian's, which root gets by apt-get.
# Ends with 1 and one line when there is none.
set -euo pipefail
log=${TMPDIR:-/tmp}/quantgate-browser-apt.log

say() { echo "browser: $*" >&2; }
give_up() { say "no Chromium: $*"; exit 1; }

installed() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name"; then return; fi
  done
  return 1
}

apt_install() {
  apt-get update || true # a source that is down leaves the others usable: only the installation decides
  # It starts without any font, and then shows none.
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core
}

install_it() {
  local beat start=$SECONDS status=0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then give_up "only root on Debian can install it"; fi
  say "installing Debian's"
  (while sleep 4; do say "installing Debian's, $((SECONDS - start)) s"; done) >/dev/null & beat=$!
  apt_install >"$log" 2>&1 </dev/null || status=1
  kill $beat; wait $beat 2>/dev/null || true
  [ $status = 0 ] || give_up "apt-get cannot install it ($log): $({ grep '^E:' "$log" || cat "$log"; } | tail -1 | cut -c1-300)"
}

if [ -n "${QUANTGATE_CHROMIUM:-}" ]; then
  [ -x "$QUANTGATE_CHROMIUM" ] || give_up "QUANTGATE_CHROMIUM=$QUANTGATE_CHROMIUM cannot be run"
  path=$QUANTGATE_CHROMIUM
else
  path=$(installed) || { install_it; path=$(installed) || give_up "apt-get installed none"; }
fi
timeout 60 "$path" --version >/dev/null 2>&1 || give_up "$path does not start"
echo "QUANTGATE_CHROMIUM=$path"

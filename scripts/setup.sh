#!/bin/sh
# Make .venv ready to develop and test in: Python, uv, the workspace with its dev dependencies, the native programs.
# Does nothing where nothing has changed. `PYTHON=python3.12 scripts/setup.sh` chooses the Python.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.setup-stamp
log=$venv/setup.log

fail() {
    echo "setup: $1" >&2
    exit 1
}

say() {
    echo "setup: $1" >&2
}

# A pyenv shim can be there without its Python, so each candidate is run.
python_problem() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$1 is missing or older than 3.11"; return; }
    "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$1 has no venv: install the package python3-venv (Debian, Ubuntu)"
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        problem=$(python_problem "$PYTHON")
        [ -z "$problem" ] || fail "$problem"
        echo "$PYTHON"
        return
    fi
    first_problem=
    for candidate in python3.13 python3.12 python3.11 python3; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        problem=$(python_problem "$candidate")
        [ -n "$problem" ] || { echo "$candidate"; return; }
        case $problem in *venv*) first_problem=${first_problem:-$problem} ;; esac
    done
    fail "${first_problem:-Python 3.11 or newer is missing: install the packages python3 and python3-venv}"
}

fingerprint() {
    { echo "${PYTHON:-}"; pwd; cat pyproject.toml plugins/*/pyproject.toml scripts/setup.sh; } 2>/dev/null | sha256sum
}

# uv does not read pip's configuration; a mirror or certificate that is set for pip is meant for it too.
follow_pip() {
    index=$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)
    index=${PIP_INDEX_URL:-$index}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
    export UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=$venv
    unset VIRTUAL_ENV UV_PYTHON
}

run_logged() {
    what=$1
    shift
    "$@" >>"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "$what failed (all of it is in $log); is PyPI reached from here?"; }
}

install_everything() {
    if ! "$venv/bin/python" -c '' 2>/dev/null || [ "$(cat "$venv/.python" 2>/dev/null)" != "${PYTHON:-}" ]; then
        python=$(choose_python)
        say "making $venv with $("$python" --version)"
        "$python" -m venv --clear "$venv" || fail "$python could not make $venv"
        echo "${PYTHON:-}" >"$venv/.python"
    fi
    : >"$log"
    say "installing uv from PyPI"
    run_logged "installing uv" "$venv/bin/python" -m pip install --disable-pip-version-check "uv>=0.8,<1"
    follow_pip
    build_native
    say "installing the workspace and what its tests need"
    run_logged "installing the workspace" "$venv/bin/uv" sync --inexact --all-packages --all-extras --all-groups --python "$venv/bin/python"
    fingerprint >"$stamp"
}

build_native() {
    "$venv/bin/python" hatch_build.py --check && return
    if ! "$venv/bin/python" -c 'import ziglang' 2>/dev/null; then
        say "installing the C compiler from PyPI (90 MB)"
        follow_pip
        compiler=$("$venv/bin/python" -c 'import hatch_build; print(hatch_build.ZIGLANG)')
        run_logged "installing the C compiler" "$venv/bin/uv" pip install --python "$venv/bin/python" "$compiler"
    fi
    "$venv/bin/python" hatch_build.py || fail "building the native programs failed"
}

[ "$(uname -s)" = Linux ] || fail "the tests and the demo need Linux; this is $(uname -s)"
if [ ! -x "$venv/bin/uv" ] || [ "$(fingerprint)" != "$(cat "$stamp" 2>/dev/null)" ]; then
    install_everything
fi
build_native

#!/bin/sh
# Makes the virtual environment $VENV with the newest Python that suits, of all that the machine has. One that is there
# keeps its Python, whose runs could not go on with another stack, and gets what requirements.txt has changed.
#   PYTHON=python3.12, PYTHON=/path/to/python  that one and no other
#   STACK=pinned  Python 3.9, 3.10 or 3.11, oldest first: the stack of TensorFlow 2.15 and Keras 2
set -eu

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-}
minors="13 12 11 10 9"
[ "${STACK:-}" = pinned ] && minors="9 10 11"

version() {  # '3.12' of a Python that runs and can make environments; a shim that points nowhere, say, does not run
    "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

pythons_beside_path() {  # of the name $1: pyenv's and uv's
    for folder in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions" \
        "${UV_PYTHON_INSTALL_DIR:-${HOME:-}/.local/share/uv/python}"; do
        ls -d "$folder"/*/bin/"$1" 2>/dev/null || true
    done
}

candidates() {  # for the minor version $1, a line each
    case "$PYTHON" in
        "") printf '%s\n' "python3.$1" python3 python; pythons_beside_path "python3.$1" ;;
        python3.*) echo "$PYTHON"; pythons_beside_path "$PYTHON" ;;
        *) echo "$PYTHON" ;;
    esac
}

find_python() {
    for minor in $minors; do
        candidates "$minor" | while read -r candidate; do
            if [ "$(version "$candidate")" = "3.$minor" ]; then
                echo "$candidate"
                break
            fi
        done
    done | head -n 1
}

is_ready() {  # complete, not older than what it was made from, and of the Python that was asked for
    [ -e "$VENV/.complete" ] && [ -z "$(find requirements.txt setup.sh -newer "$VENV/.complete")" ] &&
        { [ -z "$PYTHON" ] || [ "$(version "$(find_python)")" = "$(version "$VENV/bin/python")" ]; }
}

is_ready && exit 0
if [ -z "$PYTHON" ] && [ -e "$VENV/.complete" ]; then
    found=$(PYTHON="$VENV/bin/python"; find_python)
fi
[ -n "${found:-}" ] || found=$(find_python)
if [ -z "$found" ]; then
    asked=${PYTHON:-python3}
    case "${STACK:-}" in
        pinned) wanted="Python 3.9, 3.10 or 3.11 is needed, because TensorFlow 2.15 runs" newest=3.11 ;;
        *) wanted="Python 3.9 to 3.13 is needed, because TensorFlow 2.15 and 2.21 run" newest=3.13 ;;
    esac
    is=$({ "$asked" --version; } 2>/dev/null || echo "missing or does not run")
    echo "$wanted on no other; $asked is $is. Get one with 'uv python install $newest', pyenv, conda or your system's" \
        "packages (Debian's and Ubuntu's need python3-venv too), and name it:" \
        "make setup PYTHON=/path/to/python$newest" >&2
    exit 2
fi
echo "Setting up $VENV with $("$found" --version) ($found): installs some 25 packages, one to five minutes"
if [ "$found" != "$VENV/bin/python" ]; then
    clear=
    [ -e "$VENV/pyvenv.cfg" ] && clear=--clear  # of another Python, or half made
    "$found" -m venv $clear "$VENV"
    "$VENV/bin/python" -m pip install --quiet --upgrade pip
fi
"$VENV/bin/python" -m pip install --quiet --requirement requirements.txt
touch "$VENV/.complete"

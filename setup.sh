#!/bin/sh
# Makes the virtual environment with a Python that TensorFlow 2.15 runs on, whichever of them the machine has.
set -eu

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null
}

for candidate in "${PYTHON:-python3}" python3.11 python3.10 python3.9; do
    if suits "$candidate"; then
        found=$candidate
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "Python 3.9, 3.10 or 3.11 is needed, because TensorFlow 2.15 runs on no other; ${PYTHON:-python3} is" \
        "$({ "${PYTHON:-python3}" --version; } 2>/dev/null || echo missing). Get one with 'uv python install 3.11', pyenv, conda or" \
        "your system's packages, and name it: make setup PYTHON=/path/to/python3.11" >&2
    exit 2
fi
echo "Setting up $VENV with $("$found" --version) ($found)"
"$found" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --upgrade pip
"$VENV/bin/python" -m pip install --quiet --requirement requirements.txt
touch "$VENV/.complete"

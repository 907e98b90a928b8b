#!/usr/bin/env bash
# A training under NVIDIA Nsight Systems, its phases marked: scripts/nsys_profile.sh [OVERRIDE ...]
# NSYS_OUTPUT names the report (default: lstmopt, which becomes lstmopt.nsys-rep), PYTHON the interpreter.
set -eu
if ! command -v nsys > /dev/null; then
    echo "nsys is not installed: it is part of the CUDA toolkit, or the package nsight-systems-cli" >&2
    echo "  see https://developer.nvidia.com/nsight-systems" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    python="$root/.venv/bin/python"
fi
exec nsys profile --trace=cuda,nvtx,osrt --force-overwrite=true --output="${NSYS_OUTPUT:-lstmopt}" \
    "$python" "$root/train.py" profiler=nsight "$@"

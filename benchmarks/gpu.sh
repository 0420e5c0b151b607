#!/usr/bin/env bash
# The GPU kit: at most nine minutes on one GPU fill the marked section of benchmarks/RESULTS.md.
#
#   bash benchmarks/gpu.sh              on a machine with a GPU
#   bash benchmarks/gpu.sh --smallest   next to nothing, on any machine: does all of it run?
#   bash benchmarks/gpu.sh --pack       here, for a machine without network: fills wheels/
#
# More flags are those of `python -m benchmarks.gpu`. wheels/ (ignored by git) holds what LACKING
# names, in the versions of this environment, for Python GPU_PYTHON (3.12). torch, numpy, pandas and
# their like stay out: the other machine has its own, for its driver. If wheels/ is there and a
# package is not, they are installed, into a folder of their own that goes away with the command.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1

# Without what only reports with pictures need (vl-convert-python, 32 MiB) or --programs.
LACKING="transformers lm-eval datasets dill multiprocess evaluate jsonschema jsonschema-specifications
    referencing rpds-py altair more-itertools pytablewriter dataproperty mbstrdecoder pathvalidate tabledata
    tcolorpy typepy chardet pytz rouge-score nltk defusedxml sqlitedict word2number"

pack() {
    local version=${GPU_PYTHON:-3.12} name pin platforms=()
    for number in 2_17 2_24 2_27 2_28 2_31 2_34; do platforms+=(--platform "manylinux_${number}_x86_64"); done
    platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
    rm -rf wheels
    for name in $LACKING; do
        pin="$name==$("$python" -c "import importlib.metadata as m; print(m.version('$name'))")"
        # Where there is only a source, it is plain Python, and its wheel is for every machine.
        "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" \
            --implementation cp "${platforms[@]}" -d wheels "$pin" 2>/dev/null ||
            "$python" -m pip wheel -q --no-deps -w wheels "$pin"
    done
    du -sh wheels
}

if [ "${1:-}" = --pack ]; then pack; exit; fi

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -d wheels ] && ! "$python" -c 'import altair, lm_eval, neurosurgery' 2>/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" wheels/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi
# What the wheels took is part of the nine minutes; --seconds among the flags wins.
"$python" -m benchmarks.gpu --seconds $((520 - SECONDS)) "$@"

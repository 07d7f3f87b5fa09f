#!/usr/bin/env bash
# Build llama.cpp for CUDA and one GPU architecture; where a GPU is present, run it there.
#
#   ci/cuda.sh [options]
#
#   --version V       what to build (b11434)
#   --gpu-arch N      CUDA architecture, such as 80 or 90 (that of this machine's GPU, else 80)
#   --toolkit DIR     a CUDA toolkit (the one that nvcc on PATH belongs to, if it has cuBLAS; else one is put together
#                     from the packages nvidia-cuda-nvcc, nvidia-cuda-runtime, nvidia-cublas and nvidia-cuda-cccl of the
#                     Python package index: 0.5 GB to download, 1.1 GB on disk)
#   --toolkit-only    stop when there is a toolkit; print its directory
#   --source KIND     auto, git or snapshot (snapshot)
#
# Toolkit and llama-mgr's home are kept in ${XDG_CACHE_HOME:-~/.cache}/llama-mgr-ci/cuda, so that a second run
# compiles nothing. The first takes an hour or more on two cores (145 CUDA files).

set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/llama-mgr-ci/cuda
version=b11434 gpu_arch='' toolkit='' toolkit_only='' source=snapshot
readonly major=13 # one major version for all packages; the driver must be as new

while (($#)); do
  case $1 in
    --version) version=${2:?} && shift ;;
    --gpu-arch) gpu_arch=${2:?} && shift ;;
    --toolkit) toolkit=${2:?} && shift ;;
    --toolkit-only) toolkit_only=yes ;;
    --source) source=${2:?} && shift ;;
    --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "cuda.sh: unknown argument '$1'; see --help" >&2 && exit 2 ;;
  esac
  shift
done

# -- the toolkit -------------------------------------------------------------------------------------------------------

is_complete() { # has DIR a compiler, cuBLAS and something to link the driver with?
  [[ -x $1/bin/nvcc && -e $1/include/cublas_v2.h && -e $1/include/cuda_runtime.h ]] &&
    [[ -e $1/lib64/libcublas.so && -e $1/lib64/libcudart.so ]]
}

# The packages hold only sonames (libcublas.so.13), and no libcuda.so, which belongs to the driver: linkers need the
# plain names, and a library that has the driver's symbols.
made_toolkit() {
  local environment=$cache/toolkit prefix library
  if [[ ! -e $environment/complete ]]; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install -q "nvidia-cuda-nvcc==$major.*" "nvidia-cuda-runtime==$major.*" \
      "nvidia-cublas==$major.*" "nvidia-cuda-cccl==$major.*" >&2
    prefix=$(echo "$environment"/lib/python3*/site-packages/nvidia/cu$major)
    for library in "$prefix"/lib/lib*.so.*; do
      ln -sfn "${library##*/}" "${library%%.so.*}.so"
    done
    ln -sfn lib "$prefix/lib64"
    mkdir -p "$prefix/lib/stubs"
    grep -oE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?\b' "$prefix/include/cuda.h" | sort -u |
      sed 's/.*/int &(void) { return 100; } \/* CUDA_ERROR_NO_DEVICE *\//' |
      cc -shared -fPIC -w -x c -Wl,-soname,libcuda.so.1 -o "$prefix/lib/stubs/libcuda.so" -
    ln -sfn "$prefix" "$environment/prefix"
    touch "$environment/complete"
  fi
  readlink -f "$environment/prefix"
}

if [[ ! $toolkit ]] && compiler=$(command -v nvcc); then
  candidate=$("$compiler" -v x.cu --dryrun 2>&1 | sed -n 's/^#\$ TOP=//p')
  ! is_complete "${candidate:-/nowhere}" || toolkit=$(cd "$candidate" && pwd)
fi
[[ $toolkit ]] || toolkit=$(made_toolkit)
is_complete "$toolkit" || { echo "cuda.sh: '$toolkit' lacks nvcc, cuBLAS or the CUDA runtime" >&2 && exit 1; }
export PATH=$toolkit/bin:$PATH CUDA_PATH=$toolkit CUDAToolkit_ROOT=$toolkit CUDACXX=$toolkit/bin/nvcc

check=$(mktemp -d)
trap 'rm -rf "$check"' EXIT
cat >"$check/check.cu" <<'CU'
#include <cub/cub.cuh>
#include <cublas_v2.h>
#include <cuda.h>
__global__ void twice(float * x) { x[threadIdx.x] *= 2.0f; }
int main() {
    cublasHandle_t handle;
    cuInit(0);
    twice<<<1, 32>>>(nullptr);
    return cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS ? 0 : 3;
}
CU
nvcc -arch=sm_80 -o "$check/check" "$check/check.cu" -L"$toolkit/lib64/stubs" -lcublas -lcuda
echo "toolkit: $toolkit ($(nvcc --version | sed -n 's/^Cuda compilation tools, //p'))" >&2
if [[ $toolkit_only ]]; then
  echo "$toolkit"
  exit 0
fi

# -- the build ---------------------------------------------------------------------------------------------------------

gpu=''
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  gpu=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
fi
gpu_arch=${gpu_arch:-${gpu:-80}}

python3 -m venv "$cache/venv"
"$cache/venv/bin/pip" install -q "$here"
export LLAMA_MGR_HOME=$cache/home
llama_mgr=$cache/venv/bin/llama-mgr

"$llama_mgr" install cuda "$version" --arch cuda --source "$source" --ignore-python \
  -D "CMAKE_CUDA_ARCHITECTURES=$gpu_arch"
"$llama_mgr" exec -i cuda llama-server -- --version

if [[ ! $gpu ]]; then
  echo "built for CUDA architecture $gpu_arch; there is no GPU here to run it on"
  exit 0
fi
devices=$("$llama_mgr" exec -i cuda llama-server -- --list-devices)
echo "$devices"
grep -q 'CUDA0:' <<<"$devices"

# -- a run on the GPU --------------------------------------------------------------------------------------------------

model=$(bash "$here/ci/small_model.sh" "$cache/venv/bin/python" "$cache/model")
"$llama_mgr" exec -i cuda llama-bench -- -m "$model" -ngl 99 -p 64 -n 16 -r 1 | tee "$check/bench"
grep -q 'CUDA' "$check/bench"
echo 'CUDA works'

#!/usr/bin/env bash
# Build llama.cpp for Vulkan in clean Debian roots and run it on a software device (llvmpipe).
#
#   sudo ci/vulkan.sh [options]
#
#   --version V       what to build (b11434)
#   --source KIND     auto, git or snapshot (snapshot)
#   --only 12|13      only Debian 12, or only Debian 13
#   --root12 DIR      a Debian 12 root (else made by debootstrap; see ci/clean_root.sh)
#   --root13 DIR      a Debian 13 root
#
# Debian 13: the device is listed, llama-bench and a chat request run on it.
# Debian 12: its Vulkan headers (1.3.239) are too old for b11434 (1.3.272). `install` must say so and end with 8 before
# anything is compiled, not after two minutes of it.
#
# The first run compiles for a quarter of an hour or more; compiled objects are kept in
# ${XDG_CACHE_HOME:-~/.cache}/llama-mgr-ci/vulkan.

set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
version=b11434 source=snapshot only='' root12='' root13='' inside=''
readonly packages='libvulkan-dev glslc spirv-headers mesa-vulkan-drivers vulkan-tools'
readonly port=18411

while (($#)); do
  case $1 in
    --version) version=${2:?} && shift ;;
    --source) source=${2:?} && shift ;;
    --only) only=${2:?} && shift ;;
    --root12) root12=${2:?} && shift ;;
    --root13) root13=${2:?} && shift ;;
    --inside) inside=${2:?} && shift ;; # called by ourselves in the root
    --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "vulkan.sh: unknown argument '$1'; see --help" >&2 && exit 2 ;;
  esac
  shift
done

fail() {
  echo "vulkan.sh: $*" >&2
  exit 1
}

# -- inside the root, as its user --------------------------------------------------------------------------------------

llama_mgr() { ~/venv/bin/llama-mgr "$@"; }

install() { llama_mgr install vk "$version" --arch vulkan --source "$source" --ignore-python; }

refuses_old_headers() {
  local status=0 began=$SECONDS
  install 2>&1 | tee ~/install.log || status=${PIPESTATUS[0]}
  ((status == 8)) || fail "install ended with $status, not 8"
  grep -q '1\.3\.272' ~/install.log || fail 'the message does not name the Vulkan version that is needed'
  grep -q '239' ~/install.log || fail 'the message does not name the Vulkan version that is there'
  [[ -z $(find ~/.llama-mgr -name '*.o' -print -quit) ]] || fail 'something was compiled'
  echo "refused after $((SECONDS - began)) s, nothing compiled"
}

works_on_llvmpipe() {
  local model devices answer
  export LLAMA_MGR_BUILD_CACHE_DIRECTORY=/var/cache/llama-mgr-ci/ccache
  export GGML_VK_VISIBLE_DEVICES=0 # llama.cpp takes GPUs only, unless a device is chosen by its number
  vulkaninfo --summary 2>/dev/null | grep -E 'deviceName|apiVersion' || fail 'there is no Vulkan device here'
  install
  llama_mgr exec -i vk llama-server -- --version
  devices=$(llama_mgr exec -i vk llama-server -- --list-devices)
  echo "$devices"
  grep -qE 'Vulkan0:.*llvmpipe' <<<"$devices" || fail 'llama-server lists no Vulkan device'

  model=$(bash ci/small_model.sh ~/venv/bin/python ~/model)
  llama_mgr exec -i vk llama-bench -- -m "$model" -dev Vulkan0 -ngl 99 -p 16 -n 8 -r 1 | tee ~/bench.log
  grep -q 'Vulkan' ~/bench.log || fail 'llama-bench did not use Vulkan'

  ~/venv/bin/llama-mgr exec -i vk llama-server -- -m "$model" --device Vulkan0 -ngl 99 -c 512 --host 127.0.0.1 \
    --port "$port" >~/server.log 2>&1 &
  trap 'kill %1 2>/dev/null || true' EXIT
  answer=$(~/venv/bin/python ci/chat_once.py "http://127.0.0.1:$port" 'What is the capital of France?') ||
    { tail -n 20 ~/server.log && fail 'llama-server gave no answer'; }
  grep -iE 'Vulkan0.*buffer|offload' ~/server.log | head -n 5 || true
  echo "answer: $answer"
}

if [[ $inside ]]; then
  python3 -m venv ~/venv
  ~/venv/bin/pip install -q .
  case $inside in
    12) refuses_old_headers ;;
    13) works_on_llvmpipe ;;
  esac
  exit 0
fi

# -- outside -----------------------------------------------------------------------------------------------------------

in_root() { # in_root DEBIAN SUITE ROOT ARGUMENT...
  echo "== Debian $1"
  bash "$here/ci/clean_root.sh" --suite "$2" ${3:+--root "$3"} --packages "$packages" "${@:4}" \
    -- bash ci/vulkan.sh --inside "$1" --version "$version" --source "$source"
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/llama-mgr-ci/vulkan
mkdir -p "$cache"
[[ $only == 13 ]] || in_root 12 bookworm "$root12"
[[ $only == 12 ]] || in_root 13 trixie "$root13" --bind "$cache:/var/cache/llama-mgr-ci"
echo 'Vulkan is as it should be'

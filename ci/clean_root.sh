#!/usr/bin/env bash
# Run the README's commands as a new user of a clean Debian or Ubuntu would: in a throw-away copy of a bare root.
#
#   sudo ci/clean_root.sh [options] [-- COMMAND...]
#
#   --suite NAME      bookworm (default), trixie or noble: a root made by debootstrap, kept for later runs in
#                     ${XDG_CACHE_HOME:-~/.cache}/llama-mgr-ci/roots
#   --root DIR        this root instead; it is not changed
#   --mirror URL      where debootstrap gets its packages
#   --head            test the last commit; otherwise the working tree, less what git ignores
#   --packages LIST   Debian packages to install in the copy first
#   --bind DIR:PATH   show the directory DIR of this machine at PATH in the copy; it will belong to the user there
#   --try-it          run the README's first command (the default when nothing else is asked for)
#   --tests           run the README's second command, in the checkout
#   --keep            do not delete the copy; say where it is
#   -- COMMAND...     run COMMAND, in the checkout
#
# The user has no sudo. `git clone` of the README's URL is answered with this checkout. The machine's certificates,
# name servers, proxies and package index are passed in. Linux; needs root, and debootstrap where no --root is given.

# shellcheck disable=SC2317 # functions that a trap or another shell calls are not unreachable
set -euo pipefail

readonly user=person
readonly base_packages=python3,python3-venv,git,g++,ca-certificates
here=$(cd "$(dirname "$0")/.." && pwd)
suite=bookworm root='' mirror='' packages='' commit='' keep=''
binds=() wanted=() command=()

fail() {
  echo "clean_root.sh: $*" >&2
  exit 2
}

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

while (($#)); do
  case $1 in
    --suite) suite=${2:?} && shift ;;
    --root) root=${2:?} && shift ;;
    --mirror) mirror=${2:?} && shift ;;
    --packages) packages=${2:?} && shift ;;
    --bind) binds+=("${2:?}") && shift ;;
    --head) commit=HEAD ;;
    --try-it) wanted+=(try-it) ;;
    --tests | --test-it) wanted+=(test-it) ;;
    --keep) keep=yes ;;
    --help | -h) usage && exit 0 ;;
    --) shift && command=("$@") && break ;;
    *) fail "unknown argument '$1'; see --help" ;;
  esac
  shift
done
((${#wanted[@]} + ${#command[@]})) || wanted=(try-it)
[[ $(id -u) == 0 ]] || fail 'mounts need root: run it with sudo'

# -- the root ----------------------------------------------------------------------------------------------------------

made_root() { # prints the path of the cached root of $suite, made on first use
  local roots=${XDG_CACHE_HOME:-$HOME/.cache}/llama-mgr-ci/roots components=main
  if [[ ! -d $roots/$suite ]]; then
    command -v debootstrap >/dev/null || fail 'debootstrap is missing: apt-get install debootstrap'
    [[ $suite == noble ]] && components=main,universe # Ubuntu keeps python3-venv there
    mkdir -p "$roots"
    rm -rf "$roots/$suite.unfinished"
    debootstrap --variant=minbase --include="$base_packages" --components="$components" \
      "$suite" "$roots/$suite.unfinished" ${mirror:+"$mirror"} >&2
    rm -rf "$roots/$suite.unfinished/var/cache/apt/archives/"*.deb
    mv "$roots/$suite.unfinished" "$roots/$suite"
  fi
  echo "$roots/$suite"
}

[[ -n $root ]] || root=$(made_root)
root=$(cd "$root" && pwd)
[[ -x $root/usr/bin/apt-get && $root != / ]] || fail "'$root' is no Debian root"

# -- what goes into the copy -------------------------------------------------------------------------------------------

scratch=$(mktemp -d -p "${TMPDIR:-/var/tmp}" llama-mgr-clean-root.XXXXXX)
child=''
leave() {
  if [[ $child ]] && kill -KILL "$child" 2>/dev/null; then # unshare blocks TERM; its namespace dies with it
    wait "$child" 2>/dev/null || true
  fi
  if [[ $keep ]]; then
    echo "kept: $scratch" >&2
  else
    rm -rf --one-file-system "$scratch"
  fi
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$scratch"/{upper,work,merged,checkout}

if [[ $commit ]]; then
  git -C "$here" archive "$commit" | tar -x -C "$scratch/checkout"
else
  (
    cd "$here"
    git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
      [[ ! -e $file && ! -L $file ]] || printf '%s\0' "$file" # deleted files are listed too
    done | tar -c --null -T -
  ) | tar -x -C "$scratch/checkout"
fi
(
  cd "$scratch/checkout"
  git init -q -b main
  git add -A -f
  git -c user.name=ci -c user.email=ci@example.invalid commit -q -m 'the tested tree'
)

checkout='cd ~; [ -d llama-mgr ] || git clone -q file:///srv/llama-mgr llama-mgr; cd llama-mgr'
{
  echo 'set -e'
  for one in "${wanted[@]}"; do
    text=$(bash "$here/ci/readme_command.sh" "$one" "$scratch/checkout/README.md")
    url=$(grep -oE 'git clone [^ ]+' <<<"$text" | head -n 1 | cut -d' ' -f3 || true)
    [[ -z $url ]] || printf 'git config --global url.file:///srv/llama-mgr.insteadOf %q\n' "$url"
    # shellcheck disable=SC2016 # the user's shell expands it
    [[ $one == try-it && $url ]] && start='cd ~' || start=$checkout
    printf 'echo; echo %q\n(\n%s\n%s\n)\n' "== the README's $one" "$start" "$text"
  done
  ((${#command[@]} == 0)) || printf '(\n%s\n%s\n)\n' "$checkout" "${command[*]@Q}"
} >"$scratch/commands"

certificates=/usr/local/share/llama-mgr-ci/certificates.pem
settings=(
  HOME="/home/$user" USER="$user" LOGNAME="$user" SHELL=/bin/bash LANG=C.UTF-8 TERM="${TERM:-dumb}"
  PATH=/usr/local/bin:/usr/bin:/bin
  SSL_CERT_FILE="$certificates" REQUESTS_CA_BUNDLE="$certificates" CURL_CA_BUNDLE="$certificates"
  PIP_CERT="$certificates" GIT_SSL_CAINFO="$certificates"
)
for name in {http,https,no,all}_proxy {HTTP,HTTPS,NO,ALL}_PROXY PIP_{INDEX_URL,EXTRA_INDEX_URL,FIND_LINKS,DEFAULT_TIMEOUT} \
  UV_{DEFAULT_INDEX,INDEX,FIND_LINKS} LLAMA_MGR_FAULTS; do
  [[ ! -v $name ]] || settings+=("$name=${!name}")
done
for place in ${PIP_FIND_LINKS-} ${UV_FIND_LINKS-}; do
  [[ ! -d $place ]] || binds+=("$place:$place:ro")
done

# -- inside a mount and process namespace of its own: whatever happens, the kernel takes mounts and processes away -------

enter() { # enter ROOT SCRATCH CERTIFICATES PACKAGES USER DIR:PATH[:ro]... -- SETTING...
  set -euo pipefail
  local root=$1 scratch=$2 certificates=$3 packages=$4 user=$5 merged=$2/merged dir path mode
  shift 5
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$merged" 2>/dev/null ||
    cp -a --reflink=auto "$root/." "$merged"
  mkdir -p "$merged"/{proc,dev,sys,srv} "$merged${certificates%/*}"
  mount -t proc proc "$merged/proc"
  mount --rbind /dev "$merged/dev"
  mount --rbind /sys "$merged/sys"
  rm -f "$merged/etc/resolv.conf"
  cp -L /etc/resolv.conf /etc/hosts "$merged/etc/"
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$merged$certificates"
  if [[ $packages ]]; then
    # shellcheck disable=SC2086 # a list of packages
    chroot "$merged" sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"' \
      sh $packages >"$scratch/apt.log" 2>&1 || { tail -n 20 "$scratch/apt.log" >&2 && exit 1; }
  fi
  chroot "$merged" id "$user" >/dev/null 2>&1 || chroot "$merged" useradd --create-home --shell /bin/bash "$user"
  cp -a "$scratch/checkout" "$merged/srv/llama-mgr"
  cp "$scratch/commands" "$merged/srv/commands"
  chroot "$merged" chown -R "$user:" /srv
  while [[ $1 != -- ]]; do
    IFS=: read -r dir path mode <<<"$1"
    mkdir -p "$merged$path"
    mount --bind "$dir" "$merged$path"
    if [[ $mode == ro ]]; then
      mount -o remount,bind,ro "$merged$path"
    else
      chroot "$merged" chown "$user:" "$path"
    fi
    shift
  done
  shift
  chroot --userspec="$user:$user" "$merged" env -i "$@" bash /srv/commands
}

status=0
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child bash -c "$(declare -f enter); enter \"\$@\"" enter \
  "$root" "$scratch" "$certificates" "$packages" "$user" "${binds[@]}" -- "${settings[@]}" </dev/null &
child=$! # in the background, because bash would hold back our traps until a foreground child ends
wait "$child" || status=$?
child=''
exit "$status"

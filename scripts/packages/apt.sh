# An apt of its own, to be sourced: it knows Debian 12 and 13, x64 and arm64, and downloads without installing.
#
#   apt_setup DEST [SUITE...]      reads the mirror of this machine; then  apt_ apt-get download NAME[:ARCH][/SUITE]
#
# With names of suites, such as bullseye-security, it knows these alone, which takes less time.
# shellcheck shell=bash

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "$*"; exit 1; }

apt_setup() {
  apt_dest=$1
  shift
  local tool mirror signed suite
  for tool in apt-get dpkg; do
    command -v $tool >/dev/null || die "$tool is missing, and this takes Debian's packages; run it on Debian or Ubuntu"
  done
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -m1 '/debian/*$' || true)
  mirror=${DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}
  mirror=${mirror%/}
  signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || die "the keys of Debian are missing; run: apt-get install debian-archive-keyring"
  mkdir -p "$apt_dest"/{lists/partial,cache/archives/partial}
  [ $# -gt 0 ] || set -- bookworm bookworm-security trixie trixie-backports
  for suite in "$@"; do
    case $suite in *-security) echo "deb $signed $mirror-security $suite main" ;; *) echo "deb $signed $mirror $suite main" ;; esac
  done >"$apt_dest/sources.list"
  # Of this one the sources too.
  case " $* " in *" trixie-backports "*) echo "deb-src $signed $mirror trixie-backports main" >>"$apt_dest/sources.list" ;; esac
  cat >"$apt_dest/apt.conf" <<A
Dir::Etc::sourcelist "$apt_dest/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt_dest/lists";
Dir::Cache "$apt_dest/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
A
  apt_ apt-get update -qq || die "the Debian mirror $mirror does not answer; set DEBIAN_MIRROR to another one"
}

apt_() { APT_CONFIG="$apt_dest/apt.conf" "$@"; }

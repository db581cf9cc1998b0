# An apt of its own, to be sourced: it knows Debian 12 and 13, x64 and arm64, and downloads without installing.
#
#   apt_setup DEST                 reads the mirror of this machine; then  apt_ apt-get download NAME[:ARCH][/SUITE]
# shellcheck shell=bash

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "$*"; exit 1; }

apt_setup() {
  apt_dest=$1
  local tool mirror signed
  for tool in apt-get dpkg; do
    command -v $tool >/dev/null || die "$tool is missing, and this takes Debian's packages; run it on Debian or Ubuntu"
  done
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -m1 '/debian/*$' || true)
  mirror=${DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}
  mirror=${mirror%/}
  signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || die "the keys of Debian are missing; run: apt-get install debian-archive-keyring"
  mkdir -p "$apt_dest"/{lists/partial,cache/archives/partial}
  cat >"$apt_dest/sources.list" <<A
deb $signed $mirror bookworm main
deb $signed $mirror-security bookworm-security main
deb $signed $mirror trixie main
deb $signed $mirror trixie-backports main
deb-src $signed $mirror trixie-backports main
A
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

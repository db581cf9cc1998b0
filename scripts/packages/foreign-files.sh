#!/usr/bin/env bash
# foreign-files.sh DEST: what programs of other machines need to run here, from Debian's packages, unpacked and not installed:
#   DEST/qemu/usr/bin/qemu-aarch64, DEST/arm64-gnu, DEST/arm64-musl, DEST/x64-musl (roots with a C library each)
#
# musl is Debian 13's: with the 1.2.3 of Debian 12 Node crashes. The C++ library for musl comes with Node's own wheel.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

dest=${1:?usage: foreign-files.sh DEST}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
apt_setup "$dest/apt"
take() { # take ROOT PACKAGE...
  local into=$dest/$1 package
  shift
  rm -rf "$dest/debs"
  mkdir -p "$dest/debs" "$into"
  (cd "$dest/debs" && apt_ apt-get download -qq "$@")
  for package in "$dest"/debs/*.deb; do dpkg -x "$package" "$into"; done
}
take qemu qemu-user/trixie
take arm64-gnu libc6:arm64/trixie libgcc-s1:arm64/trixie libstdc++6:arm64/trixie
take arm64-musl musl:arm64/trixie
take x64-musl musl:amd64/trixie
# Debian 13 has no /lib beside /usr/lib, and its loaders are asked for there.
for one in arm64-gnu arm64-musl x64-musl; do [ -e "$dest/$one/lib" ] || ln -s usr/lib "$dest/$one/lib"; done
rm -rf "$dest/debs" "$dest/apt"
say "qemu $("$dest/qemu/usr/bin/qemu-aarch64" --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')"

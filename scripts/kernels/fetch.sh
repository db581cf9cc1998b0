#!/usr/bin/env bash
# fetch.sh DEST ARCH SERIES...: Debian's cloud kernels, unpacked and not installed: DEST/ARCH/SERIES/{vmlinuz,package}
#
# ARCH is amd64, or arm64: then DEST/arm64/{busybox,lib} are fetched too, of which this machine has none. Of a series (6.12) the newest that
# the mirror really has. What is there is kept, so that a second run needs no network; delete the folder of a series to have a newer one.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../packages/apt.sh"

dest=${1:?usage: fetch.sh DEST ARCH SERIES...}
arch=${2:?usage: fetch.sh DEST ARCH SERIES...}
shift 2
mkdir -p "$dest/$arch"
dest=$(cd "$dest" && pwd)
work=$dest/fetch.$arch
trap 'rm -rf "$work"' EXIT

setup() { # setup SERIES: apt with the suites that have it, and no more, since reading their lists is most of the time
  local suites
  case $1 in
    5.10) suites="bullseye-security" ;;
    6.1) suites="bookworm bookworm-security" ;;
    6.12) suites="trixie trixie-security" ;;
    *) suites="trixie-backports" ;;
  esac
  rm -rf "$work"
  apt_setup "$work/apt" $suites
}

take() { # take PACKAGE PATTERN: its first file of that name becomes $work/file; it fails where there is none
  rm -rf "$work/debs" "$work/x"
  mkdir -p "$work/debs" "$work/x"
  (cd "$work/debs" && apt_ apt-get download -qq "$1:$arch" >/dev/null 2>&1) || return 1
  # The rest of a kernel, its modules, is not even unpacked: tar ends at the first, and dpkg-deb with it.
  (dpkg-deb --fsys-tarfile "$work"/debs/*.deb 2>/dev/null || true) | tar x -C "$work/x" --wildcards --occurrence=1 "$2" 2>/dev/null || return 1
  mv "$(find "$work/x" -type f -print -quit)" "$work/file"
}

kernel() { # kernel SERIES
  local series=$1 into=$dest/$arch/$1 name package
  [ ! -e "$into/vmlinuz" ] || return 0
  setup "$series"
  for name in $(apt_ apt-cache pkgnames linux-image- | grep -E "^linux-image-${series//./\\.}[.+-][0-9a-z.+-]*cloud-$arch\$" | sort -Vr | head -6); do
    # From 7.0 on linux-image-* only depends on the package that has the image.
    for package in "$name" "linux-binary-${name#linux-image-}"; do
      take "$package" './*/vmlinuz*' || continue
      mkdir -p "$into"
      basename "$work"/debs/*.deb .deb | sed 's/%3a/:/; s/_[^_]*$//; s/_/ /' >"$into/package"
      mv "$work/file" "$into/vmlinuz"
      say "$(cat "$into/package")"
      return 0
    done
  done
  die "Debian's mirror has no cloud kernel $series for $arch; set DEBIAN_MIRROR to one that has, or name another series"
}

for series in "$@"; do kernel "$series"; done
if [ "$arch" = arm64 ] && [ ! -d "$dest/arm64/lib" ]; then
  setup 6.12
  take busybox-static './*bin/busybox' || die "Debian's mirror has no busybox-static for arm64"
  mv "$work/file" "$dest/arm64/busybox"
  rm -rf "$work/debs" "$work/x"
  mkdir "$work/debs" "$work/x"
  (cd "$work/debs" && apt_ apt-get download -qq libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64)
  for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/x"; done
  mkdir "$work/lib"
  find "$work/x" -name '*.so*' -path '*lib*' ! -path '*/gconv/*' ! -path '*/gdb/*' -exec cp -L {} "$work/lib/" \;
  mv "$work/lib" "$dest/arm64/lib"
fi

#!/usr/bin/env bash
# debian-rust.sh DEST [wasi]: a Rust compiler with the sources of its library, from Debian's packages, where rustup has neither
# (no rust-src, no foreign target). DEST/env.sh selects it. With "wasi" also a wasi-libc with threads, which no package carries, and
# one without that is the same besides.
#
# Nothing is installed on the machine but, for wasi, the compilers that wasi-libc is built with. 1 GB in DEST.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

dest=${1:?usage: debian-rust.sh DEST [wasi]}
wasi=${2:-}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
sys=$dest/sys/usr
rustlib=$sys/lib/rustlib

# rustc-web and its sources move together in bookworm-security.
mkdir -p "$dest"/{debs,sys,src}
apt_setup "$dest/apt"

if [ ! -x "$sys/bin/rustc" ]; then
  version=$(apt_ apt-cache madison rustc-web | awk '/bookworm/ && !/Sources/ {print $3}' | sort -V | tail -1)
  [ -n "$version" ] || die "the mirror has no rustc-web"
  minor=$(cut -d. -f1,2 <<<"$version")
  llvm=$(apt_ apt-cache show "libstd-rust-web-$minor=$version" |
    awk '/^Depends:/ && match($0, /libllvm[0-9]+/) { v = substr($0, RSTART, RLENGTH) } END { print v }')
  llvm_version=$(apt_ apt-cache madison "$llvm" | awk '/bookworm/ && !/Sources/ {print $3}' | sort -V | tail -1)
  (
    cd "$dest/debs"
    apt_ apt-get download -qq "rustc-web=$version" "libstd-rust-web-$minor=$version" "libstd-rust-web-dev=$version" \
      "rust-web-src=$version" "$llvm=$llvm_version"
    for package in *.deb; do dpkg -x "$package" "$dest/sys"; done
  )
  say "rustc $version"
fi
host=$rustlib/x86_64-unknown-linux-gnu/bin
mkdir -p "$host"
lld=$(find "$(rustc --print sysroot 2>/dev/null || echo /nonexistent)/lib/rustlib" -name rust-lld -type f -print -quit 2>/dev/null || true)
[ -z "$lld" ] || ln -sf "$lld" "$host/rust-lld"

libc_of() { echo "$rustlib/$1/lib/self-contained"; }
if [ -n "$wasi" ] && [ ! -e "$(libc_of wasm32-wasip1)/libc.a" -o ! -e "$(libc_of wasm32-wasip1-threads)/libc.a" ]; then
  # What is missing can be had by one command.
  missing=()
  for tool in clang-19:clang-19 ld.lld-19:lld-19 llvm-ar-19:llvm-19 cmake:cmake ninja:ninja-build; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
  done
  if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null && missing=()
  fi
  [ ${#missing[@]} = 0 ] || die "${missing[*]} missing; run: apt-get install ${missing[*]}"
  tar=${WASI_LIBC_TAR:-}
  if [ -z "$tar" ]; then
    (cd "$dest/src" && apt_ apt-get source -qq --download-only wasi-libc >/dev/null 2>&1) || true
    # The archive drops old sources; a copy of one may lie beside the checkout.
    tar=$(find "$dest/src" "$(dirname "${BASH_SOURCE[0]}")/../../../shared/toolchains" -maxdepth 1 -name 'wasi-libc_*.orig.tar.xz' 2>/dev/null | sort | tail -1 || true)
  fi
  [ -n "$tar" ] || die "the mirror has no source of wasi-libc any more; set WASI_LIBC_TAR to a wasi-libc_*.orig.tar.xz"
  tar xf "$tar" -C "$dest/src"
  source=$(find "$dest/src" -maxdepth 1 -type d -name 'wasi-libc-*' | head -1)
  sed -i 's/cmake_minimum_required(VERSION 3.26)/cmake_minimum_required(VERSION 3.25)/' "$source/CMakeLists.txt"
  # It asks for compiler builtins, and uses none of them.
  : >"$dest/empty.c"
  clang-19 --target=wasm32-wasip1-threads -c "$dest/empty.c" -o "$dest/empty.o"
  llvm-ar-19 crs "$dest/libempty.a" "$dest/empty.o"
  for target in wasm32-wasip1 wasm32-wasip1-threads; do
    [ ! -e "$(libc_of "$target")/libc.a" ] || continue
    {
      cmake -G Ninja -S "$source" -B "$dest/src/build-$target" -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY \
        -DCMAKE_C_COMPILER_WORKS=1 -DCMAKE_C_COMPILER=clang-19 -DCMAKE_C_COMPILER_TARGET="$target" \
        -DCMAKE_AR="$(command -v llvm-ar-19)" -DCMAKE_NM="$(command -v llvm-nm-19)" -DCMAKE_RANLIB="$(command -v llvm-ranlib-19)" \
        -DTARGET_TRIPLE="$target" -DBUILD_SHARED=OFF -DSETJMP=OFF -DBUILTINS_LIB="$dest/libempty.a"
      ninja -C "$dest/src/build-$target"
    } >"$dest/wasi-libc.log" 2>&1 || die "wasi-libc does not build; look into $dest/wasi-libc.log"
    mkdir -p "$(libc_of "$target")"
    cp "$dest/src/build-$target/sysroot/lib/$target"/{libc.a,crt1-command.o,crt1-reactor.o} "$(libc_of "$target")/"
    say "wasi-libc for $target"
  done
fi

cat >"$dest/env.sh" <<X
export PATH=$sys/bin:\$PATH RUSTC=$sys/bin/rustc LD_LIBRARY_PATH=$sys/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
unset RUSTUP_TOOLCHAIN
X
rm -rf "$dest/debs" "$dest/apt/cache"

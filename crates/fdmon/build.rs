//! What the target has, as cfgs: `epoll` and `io_uring`, or `wasi`, and `threads`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").unwrap_or_default();
    let wasi = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "wasi");
    let has: &[&str] = match wasi {
        false => &["epoll", "io_uring", "threads"],
        true if target.ends_with("-threads") => &["wasi", "threads"],
        true => &["wasi"],
    };
    for name in has {
        println!("cargo::rustc-cfg={name}");
    }
}

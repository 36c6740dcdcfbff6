//! Tests are linked again after every change: a debug build leaves out what only makes programs better.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |key: &str, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    if is("PROFILE", "debug") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg=-Wl,-O0,--discard-all");
        println!("cargo::rustc-link-arg=-no-pie");
    }
}

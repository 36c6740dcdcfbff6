#!/bin/sh
# Cargo's RUSTC_WRAPPER: rustc, with libFuzzer's counters in our own crates. What cargo-fuzz does to all crates.
case " $* " in
*" --crate-name tillstream "* | *" --crate-name decode "* | *" --crate-name requests "* | *" --crate-name headers "* | *" --crate-name orders "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac

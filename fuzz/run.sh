#!/bin/sh
# run.sh TARGET [libFuzzer's arguments]: builds on the stable toolchain and runs. Only tillstream and the targets are watched
# by libFuzzer, so the dependencies are compiled as everywhere else; CARGO_TARGET_DIR may hold them already.
set -e
here=$(cd "$(dirname "$0")" && pwd)
target=$1
shift
cd "$here"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/target}"

# What a small shop sends is what it begins with.
corpus="corpus/$target"
if [ ! -d "$corpus" ]; then
    shop=$(mktemp -d)
    cargo run --quiet --manifest-path ../Cargo.toml -- --quiet generate --customers 20 --out "$shop/shop.ndjson" >/dev/null
    mkdir -p "$corpus"
    python3 seeds.py "$target" "$shop" "$corpus"
    rm -r "$shop"
fi

# The versions of the main build; cargo adds libFuzzer's.
[ -e Cargo.lock ] || cp ../Cargo.lock .
export RUSTC_WRAPPER="$here/watched.sh"
cargo build --bin "$target"
mkdir -p artifacts
exec "$CARGO_TARGET_DIR/debug/$target" "$@" -artifact_prefix=artifacts/ "$corpus"

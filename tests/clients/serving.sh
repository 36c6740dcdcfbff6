# What the scripts beside this share: a folder of their own, the program, and a server that ends with the script.
# Sourced by them after `till` is the program; `$work` is theirs.
work=$(mktemp -d)
started=()
cleanup() {
  for process in "${started[@]}"; do
    kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap cleanup EXIT

# Whether `$@` succeeds before long.
await() {
  for _ in $(seq 300); do
    "$@" && return
    sleep 0.1
  done
  echo "not within 30 s: $*" >&2
  return 1
}

is_listening() {
  TILL=$(sed -n 's|.*listening on \(http://[^ ]*\).*|\1|p' "$work/log")
  [[ -n "$TILL" ]]
}

# Starts `serve` over $work/data, with the settings that are exported; its address is $TILL.
serve() {
  "$till" --data "$work/data" --quiet serve --listen 127.0.0.1:0 2>"$work/log" &
  started+=($!)
  await is_listening
  export TILL
}

#!/usr/bin/env bash
# Stripe's own mock of its API (built from its OpenAPI description) checks our requests and answers with its fixtures:
# a backfill takes one item of each list, and a second one nothing.
# Usage: tests/clients/stripe_mock.sh [TILLSTREAM]; wants Go and python3.
set -euo pipefail

till=$(realpath "${1:-target/release/tillstream}")
source "$(dirname "$0")/serving.sh"

GOBIN="$work/bin" go install github.com/stripe/stripe-mock@v0.203.0
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/bin/stripe-mock" -http-addr "127.0.0.1:$port" >"$work/mock.log" 2>&1 &
started+=($!)
is_open() { (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
await is_open

export TILLSTREAM__STRIPE__API_KEY=sk_test_mock TILLSTREAM__STRIPE__API_BASE="http://127.0.0.1:$port"
run() { "$till" --data "$work/data" --quiet "$@"; }
run --json backfill stripe | tee "$work/first.json"
run --json backfill stripe | tee "$work/second.json"
run sql --format csv "SELECT type FROM raw.events ORDER BY type" | tee "$work/types.csv"
run sql --format csv "SELECT reason FROM raw.quarantine" | tee "$work/quarantine.csv"

python3 - "$work" <<'PY'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
first, second = (json.loads((work / name).read_text()) for name in ("first.json", "second.json"))
types = (work / "types.csv").read_text().split()[1:]
fetched = ["balance_transaction", "charge", "checkout.session", "coupon", "customer", "dispute", "invoice", "payment_intent",
           "payout", "radar.early_fraud_warning", "refund", "review", "subscription"]
assert first["accepted"] == len(fetched) + 1 and first["quarantined"] == 0, first
assert second["accepted"] == 0 and second["duplicates"] == len(fetched) + 1, second
assert sorted(types) == sorted([f"{t}.fetched" for t in fetched] + ["plan.created"]), types
log = (work / "mock.log").read_text()
assert "status=200" in log and "status=4" not in log and "status=5" not in log, log
print("stripe-mock: one item of each list, once")
PY

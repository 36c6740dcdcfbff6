#!/usr/bin/env bash
# Stripe's own libraries for Node and Python sign what we accept, and we refuse what they refuse.
# Usage: tests/clients/stripe_signs.sh [TILLSTREAM]; wants node, npm and python3 with venv.
set -euo pipefail

till=$(realpath "${1:-target/release/tillstream}")
source "$(dirname "$0")/serving.sh"
cd "$work"

npm install --silent --no-audit --no-fund --prefix node stripe@23.1.0
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check stripe==16.1.0

export SECRET=whsec_of_the_script
export TILLSTREAM__STRIPE__WEBHOOK_SECRETS=whsec_that_is_rolled,$SECRET
serve

# Each case: what the library itself says of header and body, and what we answer to them.
cat > node/cases.mjs <<'JS'
import Stripe from 'stripe'

const stripe = new Stripe('sk_test_of_the_script')
const secret = process.env.SECRET
const event = (id) => JSON.stringify({
  id, object: 'event', type: 'customer.created', created: 1782000000, livemode: true, api_version: '2025-09-30.clover',
  data: { object: { id: `cus_${id}`, object: 'customer', created: 1782000000, name: 'Zoë Ångström', livemode: true } },
})
const now = Math.floor(Date.now() / 1000)
const signed = (payload, more = {}) => stripe.webhooks.generateTestHeaderString({ payload, secret, ...more })
const cases = [
  ['as it is', event('evt_n1'), signed(event('evt_n1'))],
  ['by another secret', event('evt_n2'), signed(event('evt_n2'), { secret: 'whsec_of_a_thief' })],
  ['another body', event('evt_n3') + ' ', signed(event('evt_n3'))],
  ['295 s old', event('evt_n4'), signed(event('evt_n4'), { timestamp: now - 295 })],
  ['305 s old', event('evt_n5'), signed(event('evt_n5'), { timestamp: now - 305 })],
  ['scheme v0', event('evt_n6'), signed(event('evt_n6'), { scheme: 'v0' })],
  ['two signatures', event('evt_n7'), `${signed(event('evt_n7'))},v1=${'0'.repeat(64)}`],
  ['no time', event('evt_n8'), signed(event('evt_n8')).replace(/^t=\d+,/, '')],
  ['no header', event('evt_n9'), ''],
]
let wrong = 0
for (const [name, body, header] of cases) {
  let believed = true
  try {
    stripe.webhooks.constructEvent(body, header, secret)
  } catch {
    believed = false
  }
  const headers = { 'content-type': 'application/json', 'stripe-signature': header }
  const answer = await fetch(`${process.env.TILL}/webhooks/stripe`, { method: 'POST', body, headers })
  const agree = answer.status === (believed ? 200 : 400)
  wrong += agree ? 0 : 1
  console.log(`node: ${name}: ${believed ? 'believed' : 'refused'}, and we answer ${answer.status}`)
}
process.exit(wrong === 0 ? 0 : 1)
JS
node node/cases.mjs

cat > cases.py <<'PY'
import json, os, time, urllib.error, urllib.request
import stripe

secret = os.environ["SECRET"]

def event(name):
    customer = {"id": f"cus_{name}", "object": "customer", "created": 1782000000, "livemode": True}
    return json.dumps({"id": name, "object": "event", "type": "customer.created", "created": 1782000000,
                       "livemode": True, "data": {"object": customer}})

def signed(body, secret=secret, at=None):
    at = int(time.time()) if at is None else at
    return f"t={at},v1={stripe.WebhookSignature._compute_signature(f'{at}.{body}', secret)}"

now = int(time.time())
cases = [
    ("as it is", event("evt_p1"), signed(event("evt_p1"))),
    ("by another secret", event("evt_p2"), signed(event("evt_p2"), "whsec_of_a_thief")),
    ("another body", event("evt_p3") + "\n", signed(event("evt_p3"))),
    ("295 s old", event("evt_p4"), signed(event("evt_p4"), at=now - 295)),
    ("305 s old", event("evt_p5"), signed(event("evt_p5"), at=now - 305)),
    ("no signature", event("evt_p6"), f"t={now}"),
]
wrong = 0
for name, body, header in cases:
    try:
        stripe.Webhook.construct_event(body, header, secret)
        believed = True
    except stripe.SignatureVerificationError:
        believed = False
    headers = {"Stripe-Signature": header, "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["TILL"] + "/webhooks/stripe", body.encode(), headers)
    try:
        status = urllib.request.urlopen(request).status
    except urllib.error.HTTPError as refused:
        status = refused.code
    wrong += status != (200 if believed else 400)
    print(f"python: {name}: {'believed' if believed else 'refused'}, and we answer {status}")
raise SystemExit(1 if wrong else 0)
PY
venv/bin/python cases.py

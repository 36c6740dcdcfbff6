#!/usr/bin/env bash
# Segment's own library for Node, with only its host changed: what it sends is in the shop's tables, each message once.
# Usage: tests/clients/segment.sh [TILLSTREAM]; wants node and npm, and installs the library into a folder of its own.
set -euo pipefail

till=$(realpath "${1:-target/release/tillstream}")
source "$(dirname "$0")/serving.sh"
cd "$work"

npm install --silent --no-audit --no-fund --prefix client @segment/analytics-node@3.1.0
cat > client/shop.mjs <<'JS'
import { Analytics } from '@segment/analytics-node'

const analytics = new Analytics({ writeKey: 'wk_of_the_script', host: process.env.TILL, maxEventsInBatch: 7 })
const failed = []
analytics.on('error', (error) => failed.push(error))

const anonymousId = 'browser-1'
analytics.page({ anonymousId, name: 'Home', context: { locale: 'de-DE' } })
analytics.screen({ anonymousId, name: 'Start' })
for (let i = 0; i < 20; i++) {
  analytics.track({
    anonymousId,
    event: 'Product Added',
    properties: { cart_id: 'cart-1', product_id: `sku-${i}`, quantity: 1, price: 12.5, currency: 'EUR' },
  })
}
analytics.identify({ userId: 'user-1', anonymousId, traits: { email: 'ann@example.com' } })
analytics.alias({ userId: 'user-1', previousId: anonymousId })
analytics.group({ userId: 'user-1', groupId: 'club', traits: { name: 'Club' } })
await analytics.closeAndFlush({ timeout: 20000 })
if (failed.length > 0) {
  console.error('the library could not send:', failed)
  process.exit(1)
}
JS

export TILLSTREAM__STOREFRONT__WRITE_KEYS=wk_of_the_script
serve
node client/shop.mjs

ask() { "$till" --data "$work/data" --quiet sql --format csv "$1" | tail -n 1; }
says() { [[ $(ask "$1") == "$2" ]]; }
expect() {
  await says "$2" "$3" || { echo "$1: $(ask "$2"), and $3 was sent" >&2; exit 1; }
  echo "$1: $3"
}
expect "events" "SELECT count(*) FROM raw.events" 25
expect "set aside" "SELECT count(*) FROM raw.quarantine" 0
expect "pages and screens" "SELECT count(*) FROM core.page_views" 2
expect "things put into the cart" "SELECT count(DISTINCT product_id) FROM core.cart_events WHERE cart_id = 'cart-1' AND price = 1250" 20
expect "people" "SELECT count(*) FROM core.people" 1
expect "and it is Ann" "SELECT count(*) FROM core.people WHERE email_hash = email_hash('ann@example.com')" 1

"""seeds.py TARGET SHOP CORPUS: what a small shop sends (`generate --out SHOP/shop.ndjson`), as inputs of a target."""

import json
import sys
from pathlib import Path

ORDERS = "order_id,customer_id,ordered_at,quantity,price,currency\nA,c1,2026-05-02 10:15,2,10.00,eur\nB,,2026-05-03,1,5,usd\n"
RECEIPT = {"biz_id": "1", "success": True, "phone_number": "15900000000", "send_time": "2026-05-02 10:15:00"}


def first_of_each_kind(shop, source):
    events = {}
    for line in (shop / f"shop.{source}.ndjson").read_text().splitlines():
        event = json.loads(line)
        name = event.get("type") or event.get("event")
        events.setdefault(json.dumps(name), line)
    return list(events.values())


def seeds(target, shop):
    stripe, klaviyo, shop_events = (first_of_each_kind(shop, s) for s in ("stripe", "klaviyo", "storefront"))
    match target:
        case "decode":
            for place, lines in enumerate((stripe, klaviyo, shop_events)):
                yield from (chr(place) + line for line in lines)
            yield chr(3) + json.dumps({"MessageSid": "SM1", "From": "+447400123456", "Body": "STOP"})
            yield chr(4) + json.dumps(RECEIPT)
        case "requests":
            yield from shop_events
            yield '{"batch":[' + ",".join(shop_events[:4]) + "]}"
            elements = ",".join('{"topic":"event:klaviyo.opened_email","payload":{"data":' + e + "}}" for e in klaviyo[:4])
            yield '{"data":[' + elements + '],"meta":{"klaviyo_webhook_id":"w"}}'
            yield json.dumps([RECEIPT, RECEIPT])
            yield "MessageSid=SM1&MessageStatus=delivered&To=%2B447400123456&Body=a+b"
        case "orders":
            yield chr(0) + ORDERS
            yield chr(1) + "\n".join(stripe[:5])
            yield chr(2) + "\n".join(klaviyo[:5])
        case "headers":
            yield "t=1790000000,v1=" + "0" * 64


if __name__ == "__main__":
    target, shop, corpus = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for number, seed in enumerate(seeds(target, shop)):
        (corpus / f"seed-{number}").write_text(seed)

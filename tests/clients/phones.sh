#!/usr/bin/env bash
# Google's own libphonenumber, as ported to Python by its keepers, judges some 20,000 made-up phones of every country beside
# us: each is a number for both, the same one of the same type and country, or for neither; zones and carriers agree as well,
# but for carriers of Argentine mobiles, which ours does not know.
# Usage: tests/clients/phones.sh [TILLSTREAM]; wants python3 with venv, and installs the library into a folder of its own.
set -euo pipefail

till=$(realpath "${1:-target/release/tillstream}")
source "$(dirname "$0")/serving.sh"
cd "$work"

# The releases of Google's data that our two libraries carry: numbers, and what prefixes tell.
python3 -m venv python
python/bin/pip install --quiet --target numbers phonenumbers==9.0.42
python/bin/pip install --quiet --target prefixes phonenumbers==9.0.36

cat > make.py <<'PY'
"""Prints region, text as JSON lines: example numbers of every country and type with some digits changed, as people write them."""
import json, random, phonenumbers as p

random.seed(5)
for region in sorted(p.SUPPORTED_REGIONS):
    for kind in (0, 1, 2, 3, 4, 6, 7, 10):
        example = p.example_number_for_type(region, kind)
        if not example:
            continue
        for _ in range(17):
            digits = list(p.national_significant_number(example))
            changed = min(len(digits), random.choice([0, 1, 2, 4, 15]))
            for place in random.sample(range(len(digits)), changed):
                digits[place] = random.choice("0123456789")
            digits += random.choice([[], [], [], [], [random.choice("0123456789")]])
            text = "".join(digits)
            zeros = len(text) - len(text.lstrip("0"))
            number = p.PhoneNumber(example.country_code, int(text), None, zeros > 0, zeros or None)
            national = p.format_number(number, p.PhoneNumberFormat.NATIONAL)
            whole = f"+{example.country_code}"
            written = [("", whole + text), (region, national), (region, text), (region, f"{whole} ({text[:2]}) {text[2:]}")]
            print(json.dumps(random.choice(written)))
PY
cat > judge.py <<'PY'
"""From JSON lines of region, text: Google's answer, as JSON lines."""
import json, sys, phonenumbers as p
from phonenumbers import carrier, timezone

types = {getattr(p.PhoneNumberType, name): name.lower() for name in dir(p.PhoneNumberType) if name.isupper()}
for line in sys.stdin:
    region, text = json.loads(line)
    try:
        number = p.parse(text, region or None)
    except p.NumberParseException:
        number = None
    if number is None or not p.is_valid_number(number):
        print(json.dumps(None))
        continue
    of = p.region_code_for_number(number)
    zones = [zone for zone in timezone.time_zones_for_geographical_number(number) if zone != timezone.UNKNOWN_TIMEZONE]
    print(json.dumps({
        "e164": p.format_number(number, p.PhoneNumberFormat.E164),
        "type": types[p.number_type(number)],
        "region": of if of and of.isalpha() else None,
        "zones": zones,
        "carrier": carrier.name_for_valid_number(number, "en") or None,
    }))
PY
cat > ask.py <<'PY'
"""From JSON lines of region, text: our answer, as JSON lines."""
import json, subprocess, sys

tillstream, asked = sys.argv[1], [json.loads(line) for line in sys.stdin]
quoted = lambda text: "'" + text.replace("'", "''") + "'" if text else "NULL"
for first in range(0, len(asked), 2000):
    some = enumerate(asked[first:first + 2000])
    rows = ", ".join(f"({i}, {quoted(region)}, {quoted(text)})" for i, (region, text) in some)
    query = f"""SELECT e164, phone_type(e164) AS type, phone_region(e164) AS region, phone_time_zones(e164) AS zones,
        phone_carrier(e164) AS carrier
        FROM (SELECT i, phone_e164(text, region) AS e164 FROM (VALUES {rows}) AS asked(i, region, text)) ORDER BY i"""
    with open("query.sql", "w") as file:
        file.write(query)
    told = subprocess.run([tillstream, "--data", "data", "--quiet", "sql", "--format", "ndjson", "-f", "query.sql"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    for row in map(json.loads, told.splitlines()):
        row["zones"] = json.loads(row["zones"]) if row.get("zones") else []
        print(json.dumps(row if row.get("e164") else None))
PY
cat > compare.py <<'PY'
import collections, json

read = lambda name: [json.loads(line) for line in open(name)]
asked, ours, numbers, prefixes = map(read, ("asked", "ours", "numbers.json", "prefixes.json"))
assert len(asked) == len(ours) == len(numbers) == len(prefixes), [len(x) for x in (asked, ours, numbers, prefixes)]
tally, differing = collections.Counter(), []
for text, our, number, prefix in zip(asked, ours, numbers, prefixes):
    tally["valid" if number else "not valid"] += 1
    same = bool(our) == bool(number) and all((our or {}).get(k) == (number or {}).get(k) for k in ("e164", "type", "region"))
    # The one range that our library of carriers knows nothing of.
    argentine_mobile = our and our["e164"].startswith("+549")
    if same and our and prefix:
        same = our["zones"] == prefix["zones"] and (our.get("carrier") == prefix["carrier"] or argentine_mobile)
        tally["with zones and carrier compared"] += 1
    if not same:
        differing.append((text, our, number, prefix))
print(dict(tally), "differing:", len(differing))
for difference in differing[:10]:
    print(*difference, sep="\n    ")
raise SystemExit(bool(differing))
PY
echo '{"type":"page","messageId":"m1","anonymousId":"a1"}' | "$till" --data data --quiet ingest storefront -
PYTHONPATH=numbers python3 make.py > asked
PYTHONPATH=numbers python3 judge.py < asked > numbers.json
PYTHONPATH=prefixes python3 judge.py < asked > prefixes.json
python3 ask.py "$till" < asked > ours
python3 compare.py

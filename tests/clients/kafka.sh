#!/usr/bin/env bash
# A real Apache Kafka (one node, from its own jars) as the log and as a source: it is stopped, killed and started, and so is
# `serve`, while webhooks come in; the tables are those of a directory without brokers. Then the same by TLS and a password, as
# hosted clusters want it, with records packed by zstd.
# Usage: tests/clients/kafka.sh [TILLSTREAM]; wants a build with --features kafka, a JDK of 17 or later, Maven and python3.
set -euo pipefail

till=$(realpath "${1:-target/release/tillstream}")
source "$(dirname "$0")/serving.sh"

version=4.3.1
jars=${XDG_CACHE_HOME:-$HOME/.cache}/tillstream/kafka-$version
if [[ ! -e "$jars/whole" ]]; then
  mkdir -p "$jars"
  cat > "$work/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tillstream</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
XML
  mvn --quiet --batch-mode -f "$work/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars"
  touch "$jars/whole"
fi

read -r broker_port secured_port controller_port address_port < <(python3 - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in held))
PY
)
brokers=127.0.0.1:$broker_port
secured=127.0.0.1:$secured_port
keys=(-alias broker -storetype PKCS12 -keystore "$work/broker.p12" -storepass of-the-script)
keytool -genkeypair "${keys[@]}" -keyalg EC -groupname secp256r1 -dname CN=broker -ext san=ip:127.0.0.1 -validity 2 2>"$work/java.log"
keytool -exportcert "${keys[@]}" -rfc -file "$work/broker.pem" 2>>"$work/java.log"
cat > "$work/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://$brokers,SASL_SSL://$secured,CONTROLLER://127.0.0.1:$controller_port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
ssl.keystore.location=$work/broker.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=of-the-script
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_shop="of the script";
log.dirs=$work/broker
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
PROPERTIES
java_with() { java -Xmx384m -XX:TieredStopAtLevel=1 -cp "$jars/*" "$@" 2>>"$work/java.log"; }
kafka() { java_with "org.apache.kafka.tools.$1" --bootstrap-server "$brokers" "${@:2}"; }
is_open() { (: <"/dev/tcp/127.0.0.1/$broker_port") 2>/dev/null; }
start_broker() {
  java -Xmx384m -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.Kafka "$work/server.properties" >>"$work/broker.log" 2>&1 &
  broker=$!
  started+=("$broker")
  await is_open
}
stop_broker() { kill "-$1" "$broker" && wait "$broker" 2>/dev/null || true; }
java_with kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAA -c "$work/server.properties" >/dev/null
start_broker

head -c 32 /dev/zero > "$work/key"
chmod 600 "$work/key"
export TILLSTREAM__PRIVACY__KEY_FILE="$work/key" TILLSTREAM__STRIPE__WEBHOOK_SECRETS=whsec_of_the_script
"$till" --data "$work/clean" --quiet generate --out "$work/shop.ndjson" --customers 150 --days 10 --sources stripe
"$till" --data "$work/clean" --quiet ingest stripe "$work/shop.ndjson"

export TILLSTREAM__LOG__KIND=kafka TILLSTREAM__LOG__BROKERS=$brokers
export TILLSTREAM__KAFKA__BROKERS=$brokers TILLSTREAM__KAFKA__TOPICS=shop.events
# A killed member of the group holds its partitions for as long.
export TILLSTREAM__KAFKA__PROPERTIES=session.timeout.ms=6000
kafka TopicCommand --create --topic shop.events --partitions 2 --replication-factor 1 >/dev/null
serve_again() {
  "$till" --data "$work/data" --quiet serve --listen "127.0.0.1:$address_port" 2>>"$work/log" &
  server=$!
  started+=("$server")
  await is_listening
}
serve_again

# Posts each line until it is answered with 200, as Stripe does, and a tenth of them once more.
cat > "$work/post.py" <<'PY'
import concurrent.futures, hashlib, hmac, http.client, sys, time

port, lines = int(sys.argv[1]), open(sys.argv[2], "rb").read().splitlines()

def post(line):
    for _ in range(600):
        at = str(int(time.time()))
        tag = hmac.new(b"whsec_of_the_script", at.encode() + b"." + line, hashlib.sha256).hexdigest()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=12)
            connection.request("POST", "/webhooks/stripe", line, {"Stripe-Signature": f"t={at},v1={tag}"})
            status = connection.getresponse().status
            connection.close()
        except OSError:
            status = 0
        if status == 200:
            return
        assert status in (0, 503), f"answered {status}"
        time.sleep(0.2)
    raise SystemExit("it is never taken")

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for part, _ in enumerate(pool.map(post, lines + lines[::10])):
        if part % max(1, len(lines) // 6) == 0:
            print(part, flush=True)
PY
touch "$work/posted"
python3 "$work/post.py" "$address_port" "$work/shop.ndjson" >"$work/posted" &
posting=$!
started+=("$posting")
has_posted() { (($(wc -l <"$work/posted") >= $1)); }
await has_posted 2
echo "the broker is stopped and started"
stop_broker TERM
start_broker
await has_posted 3
echo "the broker is killed and started"
stop_broker KILL
start_broker
await has_posted 4
echo "serve is killed and started"
kill -KILL "$server" && wait "$server" 2>/dev/null || true
serve_again
wait "$posting"

ask() { "$till" --data "$work/$1" --quiet sql --format csv "$2"; }
rows() { ask "$1" "SELECT $3 FROM core.$2" | sort; }
total() { ask "$1" "SELECT count(*) FROM raw.events WHERE source = 'stripe'" | tail -n 1; }
expected=$(TILLSTREAM__LOG__KIND=embedded TILLSTREAM__KAFKA__TOPICS= total clean)
holds_all() { (($(total data) >= expected)); }
await holds_all
[[ $(total data) == "$expected" ]] || { echo "$(total data) events, and $expected were sent" >&2; exit 1; }
echo "events: $expected, each once"
for table in payment_intents payment_attempts charges refunds customers orders people; do
  columns='* EXCEPT (log_offset)'
  [[ $table == orders || $table == people ]] && columns='*'
  (TILLSTREAM__LOG__KIND=embedded TILLSTREAM__KAFKA__TOPICS='' rows clean "$table" "$columns") >"$work/expected.csv"
  rows data "$table" "$columns" >"$work/found.csv"
  cmp "$work/expected.csv" "$work/found.csv" || { echo "core.$table differs from that without brokers" >&2; exit 1; }
  echo "core.$table: $(($(wc -l <"$work/found.csv") - 1)) rows, the same"
done

kafka TopicCommand --describe --topic tillstream.events >"$work/topic"
for setting in "PartitionCount: 12" cleanup.policy=delete retention.ms=-1 min.insync.replicas=1 unclean.leader.election.enable=false; do
  grep -q -e "$setting" "$work/topic" || { echo "the log's topic is without $setting: $(cat "$work/topic")" >&2; exit 1; }
done
echo "the log's topic is as it must be"

for i in $(seq 50) $(seq 20); do
  echo "{\"type\":\"track\",\"event\":\"Product Added\",\"messageId\":\"m$i\",\"anonymousId\":\"an1\",\"timestamp\":\"2026-07-01T10:00:00Z\",\"properties\":{\"cart_id\":\"c1\",\"product_id\":\"p$i\",\"quantity\":1,\"price\":5,\"currency\":\"EUR\"}}"
done >"$work/shop.events"
echo '{"type": ' >>"$work/shop.events"
kafka ConsoleProducer --topic shop.events <"$work/shop.events" >/dev/null
says() { [[ $(ask data "$1" | tail -n 1) == "$2" ]]; }
await says "SELECT count(*) FROM core.cart_events" 50
await says "SELECT count(*) FROM raw.quarantine WHERE reason LIKE 'topic shop.events, partition %not JSON%'" 1
echo "the merchant's topic: 50 events, each once, and one that is none is set aside"

# Another directory of the same topic, which it follows from the beginning.
for i in $(seq 51 60); do sed -n "s/\"m1\"/\"m$i\"/p" "$work/shop.events" | head -n 1; done >"$work/packed.events"
kafka ConsoleProducer --topic shop.events --compression-codec zstd <"$work/packed.events" >/dev/null
await says "SELECT count(*) FROM core.cart_events" 60
kill "$server" && wait "$server" || true
by_tls='"security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", "sasl.username=shop", "ssl.ca.location='"$work/broker.pem"'"'
configure() {
  cat >"$work/tillstream.toml" <<TOML
[log]
kind = "kafka"
brokers = ["$secured"]
properties = [$by_tls, "sasl.password=$1", "compression.type=zstd"]
TOML
}
unset TILLSTREAM__LOG__BROKERS TILLSTREAM__KAFKA__BROKERS TILLSTREAM__KAFKA__TOPICS TILLSTREAM__KAFKA__PROPERTIES
serve_secured() {
  "$till" --config "$work/tillstream.toml" --data "$work/secured" --quiet serve --listen "127.0.0.1:$address_port" 2>"$work/log" &
  server=$!
  started+=("$server")
}
configure "another's"
serve_secured
tells() { grep -q "refuse the connection, see \[log\] properties: .*uthentication" "$work/log"; }
await tells
kill "$server" && wait "$server" || true
echo "a wrong password is told of"
configure "of the script"
serve_secured
await is_listening
head -n 1 "$work/shop.ndjson" | sed 's/"id":"evt_/"id":"evt_by_tls_/' >"$work/one.ndjson"
python3 "$work/post.py" "$address_port" "$work/one.ndjson" >/dev/null
holds_one_more() { (($(ask_secured "SELECT count(*) FROM raw.events WHERE source = 'stripe'") == expected + 1)); }
ask_secured() { "$till" --config "$work/tillstream.toml" --data "$work/secured" --quiet sql --format csv "$1" | tail -n 1; }
await holds_one_more
for log in "$work"/broker/tillstream.events-*/*.log; do
  java_with org.apache.kafka.tools.DumpLogSegments --files "$log"
done >"$work/packed"
grep -q "compresscodec: zstd" "$work/packed" || { echo "nothing was packed by zstd" >&2; exit 1; }
echo "by TLS, with a password and zstd: $((expected + 1)) events, each once"

//! What others than Stripe post to a running `serve`: Klaviyo, Twilio, Aliyun, and the shop's own pages.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    config::Secret,
    sources::{Signed, TwilioVerifier},
    tests::support::{Serving, Till, wait},
};

const KLAVIYO: &str = "klaviyo-secret-of-the-tests";
const TWILIO: &str = "twilio-token-of-the-tests";
const ALIYUN: &str = "aliyun-secret-of-the-tests";
const KEY: &str = "wk_of_the_tests";
/// As others know the server; nobody asks it there.
const PUBLIC: &str = "https://till.example";

fn till() -> Till {
    Till::new()
        .set("KLAVIYO__WEBHOOK_SECRET", KLAVIYO)
        .set("TWILIO__AUTH_TOKEN", TWILIO)
        .set("ALIYUN__WEBHOOK_SECRET", ALIYUN)
        .set("STOREFRONT__WRITE_KEYS", &format!("wk_of_the_app,{KEY}"))
        .set("SERVER__PUBLIC_URL", PUBLIC)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

fn ask(serving: &Serving, method: Method, path: &str, build: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = build(reqwest::Client::new().request(method, serving.url(path))).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    })
}

fn post(serving: &Serving, path: &str, build: impl FnOnce(RequestBuilder) -> RequestBuilder) -> u16 {
    ask(serving, Method::POST, path, build).status
}

fn refused(serving: &Serving, source: &str, reason: &str) -> u64 {
    let metrics = ask(serving, Method::GET, "/metrics", |r| r.bearer_auth(&serving.token)).text;
    let name = format!("tillstream_webhooks_refused_total{{source=\"{source}\",reason=\"{reason}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&name)).map_or(0, |n| n.parse().unwrap())
}

fn loaded(till: &Till, table: &str, rows: u64) {
    wait(&format!("{rows} rows in {table}"), Duration::from_secs(10), || till.count(table) == rows);
}

fn tag(algorithm: hmac::Algorithm, key: &str, parts: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), &parts.concat()).as_ref().to_vec()
}

fn klaviyo(serving: &Serving, secret: &str, id: &str, body: &str) -> u16 {
    let time = "2026-08-01T09:30:00+00:00";
    let signature = hex::encode(tag(hmac::HMAC_SHA256, secret, &[body.as_bytes(), time.as_bytes()]));
    post(serving, "/webhooks/klaviyo", |r| {
        let r = r.header("Klaviyo-Webhook-Id", id).header("Klaviyo-Signature", signature);
        r.header("Klaviyo-Timestamp", time).body(body.to_owned())
    })
}

fn klaviyo_event(id: &str, topic: &str) -> Value {
    json!({"external_id": id, "topic": topic, "payload": {"data": {"type": "event", "id": id,
        "attributes": {"datetime": "2026-07-31T09:30:00+00:00", "event_properties": {"$message": "msg_1"}},
        "relationships": {"profile": {"data": {"type": "profile", "id": "01H"}},
            "metric": {"data": {"type": "metric", "id": "M1"}}}}}})
}

#[test]
fn klaviyos_webhook_is_its_events() {
    let till = till();
    let serving = Serving::start(&till);
    let data = [
        klaviyo_event("e1", "event:klaviyo.opened_email"),
        klaviyo_event("e2", "event:klaviyo.clicked_email"),
        klaviyo_event("e1", "event:klaviyo.opened_email"),
        json!({"topic": "event:klaviyo.sent_sms", "payload": 7}),
    ];
    let body = json!({"data": data, "meta": {"klaviyo_webhook_id": "W1"}}).to_string();
    assert_eq!(klaviyo(&serving, "a-thief's", "W1", &body), 400);
    assert_eq!(klaviyo(&serving, KLAVIYO, "W2", &body), 400);
    assert_eq!(post(&serving, "/webhooks/klaviyo", |r| r.body(body.clone())), 400);
    assert_eq!((refused(&serving, "klaviyo", "signature"), refused(&serving, "klaviyo", "webhook_id")), (2, 1));
    assert_eq!(klaviyo(&serving, KLAVIYO, "W1", &body), 200);
    assert_eq!(klaviyo(&serving, KLAVIYO, "W1", &body), 200);
    loaded(&till, "core.message_events", 2);
    assert_eq!((till.count("raw.events"), till.count("raw.quarantine")), (2, 1));
    let rows =
        till.sql("SELECT kind, message_id, person_id IS NOT NULL AS known FROM core.message_events ORDER BY kind");
    assert_eq!(rows[0], json!({"kind": "clicked", "message_id": "msg_1", "known": true}));
}

/// Signed as Twilio signs, for the address at which it knows the server.
fn twilio(serving: &Serving, token: &str, path: &str, form: &[(&str, &str)]) -> Answer {
    let mut sorted = form.to_vec();
    sorted.sort_unstable();
    let flat: String = sorted.iter().flat_map(|(k, v)| [*k, *v]).collect();
    let url = format!("{PUBLIC}{path}");
    let signature =
        STANDARD.encode(tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token, &[url.as_bytes(), flat.as_bytes()]));
    ask(serving, Method::POST, path, |r| r.header("X-Twilio-Signature", signature).form(form))
}

#[test]
fn twilios_status_is_a_message_event_once() {
    let till = till();
    let serving = Serving::start(&till);
    let status = |status: &'static str| {
        [("MessageSid", "SM1"), ("MessageStatus", status), ("To", "+447400123456"), ("AccountSid", "AC1")]
    };
    let path = "/webhooks/twilio/status";
    assert_eq!(twilio(&serving, "a-thief's", path, &status("delivered")).status, 400);
    assert_eq!(post(&serving, path, |r| r.form(&status("delivered"))), 400);
    assert_eq!(refused(&serving, "twilio", "signature"), 2);
    for told in ["delivered", "queued", "sent", "delivered"] {
        assert_eq!(twilio(&serving, TWILIO, path, &status(told)).status, 204);
    }
    loaded(&till, "raw.events", 3);
    let rows = till.sql("SELECT kind, message_id, channel, source FROM core.message_events ORDER BY kind");
    let row = |kind| json!({"kind": kind, "message_id": "SM1", "channel": "sms", "source": "twilio"});
    assert_eq!(rows, [row("delivered"), row("sent")]);
    let stored = till.sql("SELECT payload->>'To' AS payload_to, object_id FROM raw.events LIMIT 1");
    assert_eq!(stored[0], json!({"payload_to": "+447400123456", "object_id": "SM1"}));
}

#[test]
fn who_texts_stop_is_suppressed_until_they_text_start() {
    let till = till();
    let serving = Serving::start(&till);
    let text = |sid: &str, body: &str| {
        let form = [("MessageSid", sid), ("SmsStatus", "received"), ("From", "+447400123456"), ("Body", body)];
        twilio(&serving, TWILIO, "/webhooks/twilio/inbound", &form)
    };
    let answer = text("SM1", "Stop.");
    assert_eq!((answer.status, answer.text.as_str()), (200, "<Response/>"), "Twilio is told to text nothing back");
    loaded(&till, "ops.suppressions", 1);
    let rows = till.sql("SELECT channel, reason, source, destination_hash FROM ops.suppressions");
    assert_eq!(rows[0]["reason"], "STOP by text message");
    assert!(!rows[0].to_string().contains("7400123456"));
    assert_eq!(text("SM2", "Hello?").status, 200);
    assert_eq!(text("SM3", "START").status, 200);
    loaded(&till, "ops.suppressions", 0);
    assert_eq!(text("SM4", "STOP").status, 200);
    loaded(&till, "ops.suppressions", 1);
    assert_eq!(till.count("core.message_events"), 2, "each STOP is an unsubscription");
}

#[test]
fn aliyuns_reports_want_the_secret_in_the_address() {
    let till = till().set("ALIYUN__WEBHOOK_IPS", "203.0.113.7,127.0.0.1");
    let serving = Serving::start(&till);
    let report = |phone: &str, success: bool| {
        json!({"phone_number": phone, "success": success, "biz_id": "900^0", "report_time": "2026-08-01 17:30:00",
            "err_code": if success { "DELIVERED" } else { "UNDELIVERED" }})
    };
    let body = json!([report("13800000001", true), report("13800000002", false), 7]).to_string();
    let path = format!("/webhooks/aliyun/status/{ALIYUN}");
    assert_eq!(post(&serving, "/webhooks/aliyun/status/guessed-by-a-stranger", |r| r.body(body.clone())), 400);
    assert_eq!(refused(&serving, "aliyun", "signature"), 1);
    for _ in 0..2 {
        let answer = ask(&serving, Method::POST, &path, |r| r.body(body.clone()));
        assert_eq!(answer.status, 200);
        assert_eq!(serde_json::from_str::<Value>(&answer.text).unwrap()["code"], 0);
    }
    loaded(&till, "raw.events", 2);
    let rows = till.sql("SELECT kind, occurred_at FROM core.message_events ORDER BY kind");
    assert_eq!(rows.iter().map(|r| r["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["delivered", "failed"]);
    assert_eq!(till.count("raw.quarantine"), 1);
}

#[test]
fn aliyuns_reports_come_from_listed_addresses_alone() {
    let till = till().set("ALIYUN__WEBHOOK_IPS", "203.0.113.7");
    let serving = Serving::start(&till);
    assert_eq!(post(&serving, &format!("/webhooks/aliyun/status/{ALIYUN}"), |r| r.body("[]")), 400);
    assert_eq!(refused(&serving, "aliyun", "ip"), 1);
}

#[test]
fn what_the_shops_pages_send_lands_in_its_tables() {
    let till = till();
    let serving = Serving::start(&till);
    let track = json!({"event": "Product Added", "messageId": "m1", "anonymousId": "an1", "userId": "u1",
        "timestamp": "2026-08-01T09:00:00Z",
        "properties": {"cart_id": "c1", "product_id": "p1", "quantity": 2, "price": 12.50, "currency": "GBP"}});
    let call = |path: &str, body: &Value| {
        ask(&serving, Method::POST, path, |r| r.basic_auth(KEY, Some("")).body(body.to_string()))
    };
    let answer = call("/v1/track", &track);
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"success":true}"#));
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    assert_eq!(call("/v1/t", &track).status, 200, "twice is once");
    assert_eq!(call("/v1/page", &json!({"anonymousId": "an1", "name": "Home", "messageId": "m2"})).status, 200);
    let traits = json!({"email": "ann@example.com"});
    assert_eq!(call("/v1/identify", &json!({"userId": "u1", "traits": traits, "messageId": "m3"})).status, 200);
    for (path, id) in [("/v1/alias", "m4"), ("/v1/group", "m5"), ("/v1/screen", "m6")] {
        assert_eq!(call(path, &json!({"anonymousId": "an1", "userId": "u1", "messageId": id})).status, 200, "{path}");
    }
    // As a browser's library does it: the key in the body, no header.
    let batch = json!({"writeKey": KEY, "context": {"locale": "de-DE"}, "sentAt": "2026-08-01T09:31:00Z", "batch": [
        {"type": "page", "messageId": "m7", "anonymousId": "an2"},
        {"type": "track", "event": "Checkout Started", "messageId": "m8", "anonymousId": "an2", "properties": {"cart_id": "c2"}},
        {"type": "track", "messageId": "m9"},
        {"type": "page", "messageId": "m7", "anonymousId": "an2"},
    ]});
    assert_eq!(post(&serving, "/v1/batch", |r| r.body(batch.to_string())), 200);
    loaded(&till, "core.page_views", 3);
    let views = till.sql("SELECT locale FROM core.page_views WHERE locale IS NOT NULL");
    assert_eq!(views, [json!({"locale": "de-DE"})], "the batch's context is its messages'");
    let carts = till.sql("SELECT cart_id, kind, quantity, price, currency FROM core.cart_events ORDER BY cart_id");
    assert_eq!(carts[0], json!({"cart_id": "c1", "kind": "added", "quantity": 2, "price": 1250, "currency": "gbp"}));
    assert_eq!((carts.len(), &carts[1]["kind"]), (2, &json!("checkout_started")));
    assert_eq!((till.count("raw.events"), till.count("raw.quarantine")), (8, 1));
    let people = till.sql("SELECT count(DISTINCT person_id) AS n FROM core.cart_events WHERE cart_id = 'c1'");
    let known = till.sql("SELECT person_id FROM core.people WHERE email_hash = email_hash('ann@example.com')");
    let cart = till.sql("SELECT person_id FROM core.cart_events WHERE cart_id = 'c1'");
    assert_eq!((people[0]["n"].as_u64(), &cart), (Some(1), &known), "the browser is the one who has logged in");
}

#[test]
fn a_wrong_write_key_leaves_no_trace_but_a_counter() {
    let till = till();
    let serving = Serving::start(&till);
    let page = json!({"anonymousId": "an1", "messageId": "m1"}).to_string();
    assert_eq!(post(&serving, "/v1/page", |r| r.body(page.clone())), 401);
    assert_eq!(post(&serving, "/v1/page", |r| r.basic_auth("wk_guessed", Some("")).body(page.clone())), 401);
    let named = json!({"writeKey": "wk_guessed", "batch": []}).to_string();
    assert_eq!(post(&serving, "/v1/batch", |r| r.body(named)), 401);
    assert_eq!(post(&serving, "/v1/batch", |r| r.body("{")), 401);
    assert_eq!(post(&serving, "/v1/tracks", |r| r.basic_auth(KEY, Some("")).body(page.clone())), 404);
    let got = |path| ask(&serving, Method::GET, path, |r| r).status;
    assert_eq!((got("/v1/tracks"), got("/v1/track")), (404, 405));
    assert_eq!(refused(&serving, "storefront", "write_key"), 4);
    assert_eq!(post(&serving, "/v1/page", |r| r.basic_auth("wk_of_the_app", Some("")).body(page.clone())), 200);
    loaded(&till, "core.page_views", 1);
    assert_eq!((till.count("raw.events"), till.count("raw.quarantine")), (1, 0));
}

#[test]
fn a_packed_batch_is_unpacked_and_a_browser_is_let_in() {
    let till = till();
    let serving = Serving::start(&till);
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(json!({"batch": [{"type": "page", "anonymousId": "an1"}]}).to_string().as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let gzip = |r: RequestBuilder| r.basic_auth(KEY, Some("")).header("Content-Encoding", "gzip").body(packed);
    assert_eq!(post(&serving, "/v1/b", gzip), 200);
    loaded(&till, "core.page_views", 1);
    let may = ask(&serving, Method::OPTIONS, "/v1/t", |r| r.header("Origin", "https://shop.example"));
    assert_eq!((may.status, may.headers["access-control-allow-origin"].to_str().unwrap()), (204, "*"));
}

#[test]
fn what_is_too_large_is_refused_by_every_receiver() {
    let till = till();
    let serving = Serving::start(&till);
    let aliyun = format!("/webhooks/aliyun/status/{ALIYUN}");
    let paths = ["/webhooks/klaviyo", "/webhooks/twilio/status", "/webhooks/twilio/inbound", &aliyun, "/v1/batch"];
    for path in paths {
        assert_eq!(post(&serving, path, |r| r.body("x".repeat((1 << 20) + 1))), 413, "{path}");
    }
    let many = format!("{{\"batch\":[{}0]}}", "0,".repeat(2_500));
    assert_eq!(post(&serving, "/v1/batch", |r| r.basic_auth(KEY, Some("")).body(many)), 413);
    assert_eq!(refused(&serving, "storefront", "too_large"), 2);
}

/// Whether the other side hangs up before `longest`.
fn is_closed(stream: &mut TcpStream, longest: Duration) -> bool {
    stream.set_read_timeout(Some(longest)).unwrap();
    let mut answer = Vec::new();
    // What was answered before the end does not matter, a reset is an end too.
    stream.read_to_end(&mut answer).map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true)
}

#[test]
fn slow_clients_lose_their_place_and_others_are_served_then() {
    let till = till().set("SERVER__CONNECTIONS", "2");
    let serving = Serving::start(&till);
    let began = Instant::now();
    let mut idle = TcpStream::connect(&serving.address).unwrap();
    let mut slow = TcpStream::connect(&serving.address).unwrap();
    slow.write_all(b"POST /v1/page HTTP/1.1\r\nHost: till\r\nContent-Length: 100\r\n\r\n{").unwrap();
    // Both places are taken; this one waits for the first to be free again, and gets it.
    let page = json!({"anonymousId": "an1", "messageId": "m1"}).to_string();
    assert_eq!(post(&serving, "/v1/page", |r| r.basic_auth(KEY, Some("")).body(page)), 200);
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(is_closed(&mut slow, Duration::from_secs(10)), "a body that does not come");
    assert!(is_closed(&mut idle, Duration::from_secs(20)), "a request that does not come");
    assert_eq!(refused(&serving, "storefront", "too_slow"), 1);
}

#[derive(Deserialize)]
struct Vectors {
    json_body: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    auth_token: String,
    url: String,
    params: Vec<(String, String)>,
    expected: String,
}

#[test]
fn what_twilios_own_library_accepts_is_accepted_and_nothing_beside_it() {
    let vectors = include_str!("../../tests/fixtures/signatures/twilio.json");
    let Vectors { json_body, cases } = serde_json::from_str(vectors).unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let check = |token: &str, url: &str, params: &[(String, String)]| {
            let json = Signed::Other(json_body.as_bytes());
            let signed = if case.params.is_empty() { json } else { Signed::Form(params) };
            let ours = TwilioVerifier::new(Some(&Secret::new(token)));
            ours.verify(&case.expected, &[url.to_owned()], &signed).is_ok()
        };
        let (token, url, params) = (case.auth_token.as_str(), case.url.as_str(), case.params.as_slice());
        assert!(check(token, url, params), "{url}");
        assert!(!check(token, &format!("{url}&x=1"), params) && !check("54321", url, params), "{url}");
        if !params.is_empty() {
            let more = [params, &[("Extra".to_owned(), "1".to_owned())]].concat();
            assert!(!check(token, url, &more) && !check(token, url, &params[2..]), "{url}");
        }
    }
}

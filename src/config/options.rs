//! The table of all options: the one place where each is named and explained.

use std::path::Path;

use chrono_tz::{TZ_VARIANTS, Tz};

use super::{EmailChannel, LogKind, Secret, Settings, SmsChannel, Topic, given::Given, read::Origin};
use crate::base::{Currency, E164, SharedAddresses, Source, phone::BadPhone, suggest::did_you_mean};

/// One option.
pub(super) struct Opt {
    /// `section.key`
    pub name: &'static str,
    pub meaning: &'static str,
    pub set: fn(&mut Settings, &Given<'_>) -> Result<(), String>,
    pub show: fn(&Settings) -> Shown,
}

impl Opt {
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    pub fn key(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(_, key)| key)
    }
}

/// What may be seen of a value.
pub(super) enum Shown {
    Open(Option<String>),
    /// How many are set.
    Secret(usize),
}

/// An option for a reader: `doctor --config` prints these.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Described {
    /// `section.key`
    pub name: &'static str,
    /// `set` or `not set` for a secret.
    pub value: String,
    /// `default`, `file tillstream.toml:3` or `environment TILLSTREAM__…`
    pub source: String,
    pub meaning: &'static str,
}

pub(super) fn describe(settings: &Settings) -> Vec<Described> {
    let describe = |option: &Opt| Described {
        name: option.name,
        value: match (option.show)(settings) {
            Shown::Open(value) => value.unwrap_or_else(|| "not set".to_owned()),
            Shown::Secret(0) => "not set".to_owned(),
            Shown::Secret(1) => "set".to_owned(),
            Shown::Secret(n) => format!("{n} set"),
        },
        source: match settings.origins.of(option.name) {
            None => "default".to_owned(),
            Some(Origin::File(at)) => format!("file {at}"),
            Some(Origin::Environment(variable)) => format!("environment {variable}"),
        },
        meaning: option.meaning,
    };
    OPTIONS.iter().map(describe).collect()
}

/// All options, in the order in which they are shown.
pub(super) const OPTIONS: &[Opt] = &[
    Opt {
        name: "merchant.id",
        meaning: "Names the merchant in every row; up to 64 letters, digits, - and _",
        set: |s, v| put(&mut s.merchant.id, merchant_id(v)),
        show: |s| open(&s.merchant.id),
    },
    Opt {
        name: "merchant.timezone",
        meaning: "The IANA zone whose days are the days of reports, and in which local times are read",
        set: |s, v| put(&mut s.merchant.timezone, zone(v)),
        show: |s| open(s.merchant.timezone),
    },
    Opt {
        name: "privacy.key_file",
        meaning: "The file of 32 bytes that keys every hash of personal data; without it privacy.key in the data directory",
        set: |s, v| put(&mut s.privacy.key_file, v.path().map(Some)),
        show: |s| path(s.privacy.key_file.as_deref()),
    },
    Opt {
        name: "server.listen",
        meaning: "The address and port on which serve answers",
        set: |s, v| put(&mut s.server.listen, address(v)),
        show: |s| open(s.server.listen),
    },
    Opt {
        name: "server.public_url",
        meaning: "The address under which others reach serve, as https://till.example.com: what Twilio signs, and where it is told to send receipts",
        set: |s, v| put(&mut s.server.public_url, v.address().map(Some)),
        show: |s| Shown::Open(s.server.public_url.as_ref().map(ToString::to_string)),
    },
    Opt {
        name: "server.connections",
        meaning: "How many connections are held at once; each is an open file (ulimit -Hn)",
        set: |s, v| put(&mut s.server.connections, v.whole(1..=1_000_000).map(|n| n as usize)),
        show: |s| open(s.server.connections),
    },
    Opt {
        name: "server.checkout_tokens",
        meaning: "The tokens with which the shop's servers may ask what a checkout needs to know (/v1/phones/validate), and nothing else",
        set: |s, v| put(&mut s.server.checkout_tokens, v.list().map(|l| l.into_iter().map(Secret::new).collect())),
        show: |s| Shown::Secret(s.server.checkout_tokens.len()),
    },
    Opt {
        name: "server.checkout_rate",
        meaning: "How many of those questions are answered a second",
        set: |s, v| put(&mut s.server.checkout_rate, v.whole(1..=100_000)),
        show: |s| open(s.server.checkout_rate),
    },
    Opt {
        name: "stripe.webhook_secrets",
        meaning: "The whsec_… of each webhook endpoint; two while one is rolled",
        set: |s, v| put(&mut s.stripe.webhook_secrets, v.list().map(|l| l.into_iter().map(Secret::new).collect())),
        show: |s| Shown::Secret(s.stripe.webhook_secrets.len()),
    },
    Opt {
        name: "stripe.tolerance_seconds",
        meaning: "How far a webhook signature's time may be from ours, in seconds",
        set: |s, v| put(&mut s.stripe.tolerance_seconds, v.whole(1..=DAY_SECONDS)),
        show: |s| open(s.stripe.tolerance_seconds),
    },
    Opt {
        name: "stripe.api_key",
        meaning: "The key (rk_… or sk_…) that may read events, charges, customers and the like, for backfills and polls",
        set: |s, v| put(&mut s.stripe.api_key, v.text().map(Secret::new).map(Some)),
        show: |s| secret(&s.stripe.api_key),
    },
    Opt {
        name: "stripe.api_base",
        meaning: "Where Stripe's API is",
        set: |s, v| put(&mut s.stripe.api_base, v.address()),
        show: |s| open(&s.stripe.api_base),
    },
    Opt {
        name: "klaviyo.api_key",
        meaning: "The private key (pk_…) for Klaviyo's API",
        set: |s, v| put(&mut s.klaviyo.api_key, v.text().map(Secret::new).map(Some)),
        show: |s| secret(&s.klaviyo.api_key),
    },
    Opt {
        name: "klaviyo.webhook_secret",
        meaning: "The secret with which Klaviyo signs its webhooks",
        set: |s, v| put(&mut s.klaviyo.webhook_secret, v.text().map(Secret::new).map(Some)),
        show: |s| secret(&s.klaviyo.webhook_secret),
    },
    Opt {
        name: "klaviyo.api_base",
        meaning: "Where Klaviyo's API is",
        set: |s, v| put(&mut s.klaviyo.api_base, v.address()),
        show: |s| open(&s.klaviyo.api_base),
    },
    Opt {
        name: "twilio.account_sid",
        meaning: "The account (AC…) that sends",
        set: |s, v| put(&mut s.twilio.account_sid, v.text().map(Some)),
        show: |s| Shown::Open(s.twilio.account_sid.clone()),
    },
    Opt {
        name: "twilio.auth_token",
        meaning: "The token of that account",
        set: |s, v| put(&mut s.twilio.auth_token, v.text().map(Secret::new).map(Some)),
        show: |s| secret(&s.twilio.auth_token),
    },
    Opt {
        name: "twilio.messaging_service_sid",
        meaning: "The messaging service (MG…) that picks the sender",
        set: |s, v| put(&mut s.twilio.messaging_service_sid, v.text().map(Some)),
        show: |s| Shown::Open(s.twilio.messaging_service_sid.clone()),
    },
    Opt {
        name: "twilio.from",
        meaning: "The sender where there is no messaging service: a number (+1…), a short code or a name",
        set: |s, v| put(&mut s.twilio.from, v.text().map(Some)),
        show: |s| Shown::Open(s.twilio.from.clone()),
    },
    Opt {
        name: "twilio.api_base",
        meaning: "Where Twilio's API is",
        set: |s, v| put(&mut s.twilio.api_base, v.address()),
        show: |s| open(&s.twilio.api_base),
    },
    Opt {
        name: "aliyun.webhook_secret",
        meaning: "The last part of the address given to Aliyun for reports (/webhooks/aliyun/status/SECRET), which it does not sign",
        set: |s, v| put(&mut s.aliyun.webhook_secret, path_secret(v).map(Some)),
        show: |s| secret(&s.aliyun.webhook_secret),
    },
    Opt {
        name: "aliyun.webhook_ips",
        meaning: "The IP addresses from which Aliyun's reports may come (a proxy's own, behind one); from anywhere unless set",
        set: |s, v| put(&mut s.aliyun.webhook_ips, ips(v)),
        show: |s| list(&s.aliyun.webhook_ips),
    },
    Opt {
        name: "storefront.write_keys",
        meaning: "The keys with which the shop's pages and apps may send events; one each",
        set: |s, v| put(&mut s.storefront.write_keys, v.list().map(|l| l.into_iter().map(Secret::new).collect())),
        show: |s| Shown::Secret(s.storefront.write_keys.len()),
    },
    Opt {
        name: "log.kind",
        meaning: "What makes an event durable before it is acknowledged: embedded (this directory's disk) or kafka (its brokers, acks=all)",
        set: |s, v| put(&mut s.log.kind, v.one_of(LOG_KINDS)),
        show: |s| word(LOG_KINDS, s.log.kind),
    },
    Opt {
        name: "log.brokers",
        meaning: "The brokers that keep the log, as host:port; one that answers names the others",
        set: |s, v| put(&mut s.log.cluster.brokers, v.list()),
        show: |s| list(&s.log.cluster.brokers),
    },
    Opt {
        name: "log.topic",
        meaning: "The topic of the log, for one merchant alone; it is made where it is missing",
        set: |s, v| put(&mut s.log.topic, topic_name(v.text()?)),
        show: |s| open(&s.log.topic),
    },
    Opt {
        name: "log.properties",
        meaning: "Settings of librdkafka for the log's brokers, each as name=value",
        set: |s, v| put(&mut s.log.cluster.properties, properties(v)),
        show: |s| Shown::Secret(s.log.cluster.properties.len()),
    },
    Opt {
        name: "log.segment_mib",
        meaning: "The size at which the event log starts its next file, in MiB",
        set: |s, v| put(&mut s.log.segment_mib, v.whole(1..=4096)),
        show: |s| open(s.log.segment_mib),
    },
    Opt {
        name: "kafka.brokers",
        meaning: "The brokers of the merchant's own topics, as host:port",
        set: |s, v| put(&mut s.kafka.cluster.brokers, v.list()),
        show: |s| list(&s.kafka.cluster.brokers),
    },
    Opt {
        name: "kafka.topics",
        meaning: "Topics whose records serve takes in, one JSON event each: a name, or name=stripe, =klaviyo or =storefront (which it is unless said)",
        set: |s, v| put(&mut s.kafka.topics, topics(v)),
        show: |s| list(&s.kafka.topics),
    },
    Opt {
        name: "kafka.group",
        meaning: "The consumer group under which those topics are read; processes of one group share them",
        set: |s, v| put(&mut s.kafka.group, v.text()),
        show: |s| open(&s.kafka.group),
    },
    Opt {
        name: "kafka.properties",
        meaning: "Settings of librdkafka for those brokers, each as name=value",
        set: |s, v| put(&mut s.kafka.cluster.properties, properties(v)),
        show: |s| Shown::Secret(s.kafka.cluster.properties.len()),
    },
    Opt {
        name: "engine.memory",
        meaning: "What all queries together may hold in memory before they spill to disk, as 512MiB or 4GiB",
        set: |s, v| put(&mut s.engine.memory, v.mebibytes(64..=1 << 20).map(|n| n << 20)),
        show: |s| open(format!("{}MiB", s.engine.memory >> 20)),
    },
    Opt {
        name: "engine.threads",
        meaning: "How many threads a query may use; as many as the machine has unless set",
        set: |s, v| put(&mut s.engine.threads, v.whole(1..=1024).map(|n| n as usize)),
        show: |s| open(s.engine.threads),
    },
    Opt {
        name: "engine.time_limit",
        meaning: "How long a query may run, as 90s or 5m",
        set: |s, v| put(&mut s.engine.time_limit, v.span()),
        show: |s| open(format!("{}s", s.engine.time_limit.as_secs())),
    },
    Opt {
        name: "pipelines.dir",
        meaning: "The folder of pipelines/ and sql/ to use; a file there takes the place of a built-in one of its name",
        set: |s, v| put(&mut s.pipelines.dir, v.path().map(Some)),
        show: |s| path(s.pipelines.dir.as_deref()),
    },
    Opt {
        name: "activate.send",
        meaning: "Whether messages leave at all; false records what would be sent",
        set: |s, v| put(&mut s.activate.send, v.yes_or_no()),
        show: |s| open(s.activate.send),
    },
    Opt {
        name: "activate.sms",
        meaning: "The channel for text messages: outbox (recorded only) or twilio",
        set: |s, v| put(&mut s.activate.sms, v.one_of(SMS_CHANNELS)),
        show: |s| word(SMS_CHANNELS, s.activate.sms),
    },
    Opt {
        name: "activate.email",
        meaning: "The channel for e-mail: outbox (recorded only) or klaviyo",
        set: |s, v| put(&mut s.activate.email, v.one_of(EMAIL_CHANNELS)),
        show: |s| word(EMAIL_CHANNELS, s.activate.email),
    },
    Opt {
        name: "people.default_region",
        meaning: "The country (two letters, as GB) by which a phone number without a country code is read",
        set: |s, v| put(&mut s.people.default_region, region(v).map(Some)),
        show: |s| Shown::Open(s.people.default_region.clone()),
    },
    Opt {
        name: "people.shared_addresses",
        meaning: "E-mail addresses, or whole domains as @shop.example, that many people order with and that so name nobody, as support@shop.example; after a change `tillstream rebuild` applies it to the past",
        set: |s, v| put(&mut s.people.shared_addresses, shared_addresses(v)),
        show: |s| list(&s.people.shared_addresses.0),
    },
    Opt {
        name: "people.reporting_currency",
        meaning: "The currency (as eur) in which amounts of several currencies are reported: what reporting_currency() says in SQL",
        set: |s, v| put(&mut s.people.reporting_currency, currency(v).map(Some)),
        show: |s| Shown::Open(s.people.reporting_currency.map(|c| c.to_string())),
    },
    Opt {
        name: "fx.url",
        meaning: "Where exchange rates are fetched daily, in the ECB's layout, as https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml",
        set: |s, v| put(&mut s.fx.url, v.address().map(Some)),
        show: |s| Shown::Open(s.fx.url.as_ref().map(ToString::to_string)),
    },
    Opt {
        name: "fx.file",
        meaning: "A CSV file of exchange rates, read daily: day,base,currency,rate, as 2026-01-30,eur,usd,1.0823",
        set: |s, v| put(&mut s.fx.file, v.path().map(Some)),
        show: |s| path(s.fx.file.as_deref()),
    },
    Opt {
        name: "fx.stripe",
        meaning: "Take as exchange rates, daily, those at which Stripe converted the shop's own payments (core.charges.exchange_rate)",
        set: |s, v| put(&mut s.fx.stripe, v.yes_or_no()),
        show: |s| open(s.fx.stripe),
    },
    Opt {
        name: "fx.max_age_days",
        meaning: "How many days a rate may be used when there is no newer one; after that fx() is NULL, and doctor says so",
        set: |s, v| put(&mut s.fx.max_age_days, v.whole(0..=366)),
        show: |s| open(s.fx.max_age_days),
    },
];

const DAY_SECONDS: u32 = 86_400;

const LOG_KINDS: &[(&str, LogKind)] = &[("embedded", LogKind::Embedded), ("kafka", LogKind::Kafka)];

const SMS_CHANNELS: &[(&str, SmsChannel)] = &[("outbox", SmsChannel::Outbox), ("twilio", SmsChannel::Twilio)];

const EMAIL_CHANNELS: &[(&str, EmailChannel)] = &[("outbox", EmailChannel::Outbox), ("klaviyo", EmailChannel::Klaviyo)];

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn open(value: impl ToString) -> Shown {
    Shown::Open(Some(value.to_string()))
}

fn path(value: Option<&Path>) -> Shown {
    Shown::Open(value.map(|p| p.display().to_string()))
}

fn secret(value: &Option<Secret>) -> Shown {
    Shown::Secret(usize::from(value.is_some()))
}

fn list(values: &[impl ToString]) -> Shown {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    Shown::Open((!texts.is_empty()).then(|| texts.join(", ")))
}

fn word<T: PartialEq>(words: &[(&str, T)], value: T) -> Shown {
    Shown::Open(words.iter().find(|(_, t)| *t == value).map(|(w, _)| (*w).to_owned()))
}

fn merchant_id(given: &Given<'_>) -> Result<String, String> {
    let id = given.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.len() <= 64 && id.chars().all(plain) {
        Ok(id)
    } else {
        Err(format!("up to 64 letters, digits, - and _ are wanted, not \"{id}\""))
    }
}

fn zone(given: &Given<'_>) -> Result<Tz, String> {
    let name = given.text()?;
    name.parse().map_err(|_| {
        let hint = did_you_mean(&name, TZ_VARIANTS.iter().map(|z| z.name()));
        format!("\"{name}\" is no IANA time zone, as Europe/Paris{hint}")
    })
}

fn address(given: &Given<'_>) -> Result<std::net::SocketAddr, String> {
    let text = given.text()?;
    text.parse().map_err(|_| format!("an IP address and port is wanted, as 127.0.0.1:8700, not \"{text}\""))
}

fn ips(given: &Given<'_>) -> Result<Vec<std::net::IpAddr>, String> {
    let ip =
        |text: String| text.parse().map_err(|_| format!("IP addresses are wanted, as 203.0.113.7, not \"{text}\""));
    given.list()?.into_iter().map(ip).collect()
}

/// A secret that stands in an address: nobody must find it by trying, and no character of it may be written otherwise.
fn path_secret(given: &Given<'_>) -> Result<Secret, String> {
    let text = given.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.len() >= 16 && text.chars().all(plain) {
        Ok(Secret::new(text))
    } else {
        Err("16 or more letters, digits, - and _ are wanted".to_owned())
    }
}

/// As Kafka wants it.
fn topic_name(name: String) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.len() <= 249 && name.chars().all(plain) && name != "." && name != ".." {
        Ok(name)
    } else {
        Err(format!("up to 249 letters, digits, ., _ and - are wanted as a topic, not \"{name}\""))
    }
}

fn topics(given: &Given<'_>) -> Result<Vec<Topic>, String> {
    let topic = |text: String| {
        let (name, source) = text.split_once('=').unwrap_or((text.as_str(), "storefront"));
        let source = source
            .trim()
            .parse()
            .ok()
            .filter(|source| matches!(source, Source::Stripe | Source::Klaviyo | Source::Storefront));
        let source = source.ok_or_else(|| format!("stripe, klaviyo or storefront is wanted after = in \"{text}\""))?;
        Ok(Topic { name: topic_name(name.trim().to_owned())?, source })
    };
    given.list()?.into_iter().map(topic).collect()
}

/// The error repeats no value: it may be a password.
fn properties(given: &Given<'_>) -> Result<Vec<(String, Secret)>, String> {
    let property = |text: String| match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), Secret::new(value.trim().to_owned()))),
        None => Err("name=value is wanted, as security.protocol=ssl".to_owned()),
    };
    given.list()?.into_iter().map(property).collect()
}

fn region(given: &Given<'_>) -> Result<String, String> {
    let region = given.text()?.to_uppercase();
    match E164::parse("0", Some(&region)) {
        Err(BadPhone::UnknownRegion) => Err(format!("a two-letter country code is wanted, as GB, not \"{region}\"")),
        _ => Ok(region),
    }
}

fn shared_addresses(given: &Given<'_>) -> Result<SharedAddresses, String> {
    let address = |text: String| match text.to_lowercase() {
        text if text.matches('@').count() == 1 && !text.ends_with('@') && !text.contains(char::is_whitespace) => {
            Ok(text)
        }
        text => Err(format!("an address, or a domain as @shop.example, is wanted, not \"{text}\"")),
    };
    given.list()?.into_iter().map(address).collect::<Result<_, _>>().map(SharedAddresses)
}

fn currency(given: &Given<'_>) -> Result<Currency, String> {
    Currency::parse(&given.text()?).map_err(|e| e.to_string())
}

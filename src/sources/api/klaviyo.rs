//! Klaviyo's API: events with their metric and profile, and profiles with what they agreed to.
//!
//! Pages are walked from the oldest on. The items of a page share their metrics and profiles beside the list; each
//! event gets its own back, so that it is the same resource that a file of events holds. Limits are fixed windows, told
//! beforehand for each endpoint and, since other programs use the same account, by each answer: one that says that
//! nothing is left of the window is the last until the next one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{ApiError, Leg, List, Page, ask, client, envelope, with_query};
use crate::{
    base::{Micros, Source, time::SECOND},
    config::{self, BaseUrl, Secret},
    net::{Client, Limit, NetError, Request, Response},
};

pub(super) const PROVIDER: &str = "Klaviyo";

const REVISION: &str = "2026-07-15";
const ACCEPT: &str = "application/vnd.api+json";
/// What is read of a profile beside an event: who it is, not all that is known of them.
const OF_A_PROFILE: &str = "email,phone_number,external_id,first_name,last_name,locale,location";
/// (path, calls a second, calls a minute): the limits of Get Events and Get Profiles.
const LIMITS: [(List, u32, u32); 2] = [(List::KlaviyoEvents, 350, 3500), (List::KlaviyoProfiles, 75, 750)];
/// A window is a minute; what says more is not believed.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct KlaviyoApi {
    client: Client,
    base: BaseUrl,
    key: Secret,
    /// By path: when its window starts anew, where an answer said that this one is spent.
    spent: Arc<Mutex<HashMap<&'static str, Instant>>>,
}

pub(super) fn path(list: List) -> &'static str {
    if list == List::KlaviyoProfiles { "/api/profiles" } else { "/api/events" }
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    included: Vec<&'a RawValue>,
    #[serde(default)]
    links: Links,
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    attributes: Times,
    #[serde(default)]
    relationships: Relationships,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Times {
    datetime: Option<String>,
    updated: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Relationships {
    metric: Relation,
    profile: Relation,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Relation {
    data: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

#[derive(Deserialize, Default)]
struct Faults {
    #[serde(default)]
    errors: Vec<FaultBody>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FaultBody {
    detail: Option<String>,
    source: Option<FaultSource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FaultSource {
    parameter: Option<String>,
}

impl KlaviyoApi {
    /// `None` where the settings lack a key.
    pub fn new(settings: &config::Klaviyo) -> Result<Option<KlaviyoApi>, NetError> {
        let Some(key) = settings.api_key.clone() else { return Ok(None) };
        let base = settings.api_base.clone();
        let limits = LIMITS.into_iter().flat_map(|(list, a_second, a_minute)| {
            let limit = |requests, seconds| Limit {
                prefix: base.join(path(list)),
                requests,
                per: Duration::from_secs(seconds),
            };
            [limit(a_second, 1), limit(a_minute, 60)]
        });
        let client = client(limits.collect())?;
        Ok(Some(KlaviyoApi { client, base, key, spent: Arc::default() }))
    }

    pub(super) async fn page(&self, leg: &Leg, after: Option<&str>) -> Result<Page, ApiError> {
        let path = path(leg.list);
        let mut query = query(leg);
        query.extend(after.map(|cursor| ("page[cursor]", cursor.to_owned())));
        let response = self.get(path, &query).await?;
        read(&response.body, Micros::now()).map_err(|why| ApiError::NoPage { provider: PROVIDER, path, why })
    }

    pub(super) async fn probe(&self) -> Result<(), ApiError> {
        self.get(path(List::KlaviyoEvents), &[("page[size]", "1".to_owned())]).await.map(|_| ())
    }

    async fn get(&self, path: &'static str, query: &[(&str, String)]) -> Result<Response, ApiError> {
        let again = self.spent().get(path).copied();
        if let Some(again) = again {
            tokio::time::sleep_until(again).await;
        }
        let request = Request::get(with_query(&self.base.join(path), query))
            .header("authorization", format!("Klaviyo-API-Key {}", self.key.expose()))
            .header("revision", REVISION)
            .header("accept", ACCEPT)
            .wants_json();
        let response = ask(&self.client, PROVIDER, &request).await?;
        if let Some(wait) = spent(&response) {
            self.spent().insert(path, Instant::now() + wait);
        }
        if response.is_success() { Ok(response) } else { Err(fault(path, &response)) }
    }

    fn spent(&self) -> MutexGuard<'_, HashMap<&'static str, Instant>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn query(leg: &Leg) -> Vec<(&'static str, String)> {
    let until = leg.window.until;
    if leg.list == List::KlaviyoProfiles {
        // There is no greater-or-equal for this field.
        let since = leg.window.since.map(|s| format!("greater-than(updated,{}),", s.plus(-SECOND)));
        return vec![
            ("filter", format!("{}less-than(updated,{until})", since.unwrap_or_default())),
            ("sort", "updated".to_owned()),
            ("page[size]", "100".to_owned()),
            ("additional-fields[profile]", "subscriptions".to_owned()),
        ];
    }
    let since = leg.window.since.map(|s| format!("greater-or-equal(datetime,{s}),"));
    vec![
        ("filter", format!("{}less-than(datetime,{until})", since.unwrap_or_default())),
        ("sort", "datetime".to_owned()),
        ("include", "metric,profile".to_owned()),
        ("fields[profile]", OF_A_PROFILE.to_owned()),
        ("page[size]", "1000".to_owned()),
    ]
}

/// How long until there is something left again, where an answer says that there is nothing.
fn spent(response: &Response) -> Option<Duration> {
    let left: u64 = response.header("ratelimit-remaining")?.trim().parse().ok()?;
    let reset: u64 = response.header("ratelimit-reset")?.trim().parse().ok()?;
    (left == 0).then(|| Duration::from_secs(reset).min(LONGEST_WINDOW))
}

fn fault(path: &'static str, response: &Response) -> ApiError {
    let faults: Faults = response.json().unwrap_or_default();
    let fault = faults.errors.into_iter().next().unwrap_or_default();
    let detail = fault.detail.unwrap_or_else(|| "it gave no reason".to_owned());
    let cursor = fault.source.and_then(|s| s.parameter).is_some_and(|p| p.contains("cursor"));
    match response.status {
        status @ (401 | 403) => {
            let needs = "events:read, metrics:read and profiles:read";
            ApiError::Key { provider: PROVIDER, section: "klaviyo", status, detail, needs }
        }
        400 if cursor => ApiError::Expired { provider: PROVIDER, path },
        status => ApiError::Refused { provider: PROVIDER, path, status, detail },
    }
}

/// A page's items; `Err`: why it is none.
fn read(body: &[u8], now: Micros) -> Result<Page, String> {
    let listed: Listed = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mut beside: HashMap<(String, String), &str> = HashMap::new();
    for raw in listed.included {
        let item: Item = serde_json::from_str(raw.get()).map_err(|e| format!("an included item of it: {e}"))?;
        beside.extend(item.id.map(|id| ((item.kind, id), raw.get())));
    }
    let mut page = Page { envelopes: Vec::with_capacity(listed.data.len()), next: None, reached: None };
    for raw in listed.data {
        let item: Item = serde_json::from_str(raw.get()).map_err(|e| format!("an item of it: {e}"))?;
        let Item { kind, attributes, relationships, .. } = item;
        page.reached =
            attributes.datetime.or(attributes.updated).and_then(|t| Micros::from_rfc3339(&t)).or(page.reached);
        let text = if kind == "event" {
            let related = [("metric", relationships.metric), ("profile", relationships.profile)];
            let included = related
                .into_iter()
                .filter_map(|(kind, relation)| beside.get(&(kind.to_owned(), relation.data?.id)).copied());
            with_included(raw.get(), &included.collect::<Vec<_>>())
        } else {
            raw.get().to_owned()
        };
        page.envelopes.push(envelope(Source::Klaviyo, text.into_bytes(), now));
    }
    page.next = listed.links.next.as_deref().map(cursor).transpose()?;
    Ok(page)
}

/// The resource with what belongs to it, as text: its numbers stay written as they were.
fn with_included(resource: &str, included: &[&str]) -> String {
    match resource.trim_end().strip_suffix('}') {
        Some(open) if !included.is_empty() => format!("{open},\"included\":[{}]}}", included.join(",")),
        _ => resource.to_owned(),
    }
}

/// Of the next page's address only the cursor is used: where the key is sent is for the settings to say.
fn cursor(address: &str) -> Result<String, String> {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "page[cursor]")
        .map(|(_, cursor)| cursor.into_owned())
        .ok_or_else(|| "its links.next has no page[cursor]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Via;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    #[test]
    fn an_event_of_a_page_is_the_event_of_a_file() {
        let event = |n: u32| {
            format!(
                r#"{{"type":"event","id":"ev{n}","attributes":{{"datetime":"2026-01-31T09:30:00+00:00","event_properties":{{"$value":49.90}}}},"relationships":{{"profile":{{"data":{{"type":"profile","id":"P{n}"}}}},"metric":{{"data":{{"type":"metric","id":"M1"}}}}}}}}"#
            )
        };
        let metric = r#"{"type":"metric","id":"M1","attributes":{"name":"Opened Email"}}"#;
        let profile =
            |n: u32| format!(r#"{{"type":"profile","id":"P{n}","attributes":{{"email":"p{n}@example.com"}}}}"#);
        let body = format!(
            r#"{{"data":[{},{}],"included":[{},{metric},{}],"links":{{"self":"https://a/api/events","next":"https://elsewhere/api/events?page%5Bcursor%5D=abc%3D"}}}}"#,
            event(1),
            event(2),
            profile(2),
            profile(1)
        );
        let page = read(body.as_bytes(), NOW).unwrap();
        assert_eq!(page.next.as_deref(), Some("abc="));
        for n in [1, 2] {
            let own = event(n);
            let line = format!(r#"{},"included":[{metric},{}]}}"#, own.strip_suffix('}').unwrap(), profile(n));
            let of_file = crate::sources::decode(Source::Klaviyo, &bytes::Bytes::from(line), NOW).unwrap();
            assert_eq!(page.envelopes[n as usize - 1], of_file.clone().by(Via::Api));
            assert_eq!(of_file.event_type, "Opened Email");
        }
    }

    #[test]
    fn a_window_is_asked_for_as_klaviyo_filters() {
        let window = super::super::Window { since: Micros::from_seconds(1_800_000_000), until: NOW.plus(60 * SECOND) };
        let filter = |list| query(&Leg { list, window }).into_iter().find(|(k, _)| *k == "filter").unwrap().1;
        assert_eq!(
            filter(List::KlaviyoEvents),
            "greater-or-equal(datetime,2027-01-15T08:00:00Z),less-than(datetime,2027-01-15T08:01:00Z)"
        );
        assert_eq!(
            filter(List::KlaviyoProfiles),
            "greater-than(updated,2027-01-15T07:59:59Z),less-than(updated,2027-01-15T08:01:00Z)"
        );
    }

    #[test]
    fn what_is_no_page_says_why() {
        let why = |body: &str| read(body.as_bytes(), NOW).unwrap_err();
        assert!(why("{}").contains("data"));
        assert!(why(r#"{"data":[],"links":{"next":"https://a/api/events"}}"#).contains("cursor"));
        assert!(read(br#"{"data":[],"links":{"self":"x","next":null}}"#, NOW).unwrap().next.is_none());
    }
}

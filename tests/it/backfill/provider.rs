//! Stripe's and Klaviyo's list APIs, as their documentation has them, with bad days on request.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

/// What is done to one request instead of answering it.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    TooMany {
        retry_after: Option<u32>,
    },
    Fails,
    /// The connection ends in the middle of the body.
    CutMidBody,
    /// 200, and the body stops where a proxy lost it, but ends well.
    HalfAPage,
    /// The page before, once more.
    OldPage,
    Slow,
    /// The place that the next page starts at is not known any more.
    Forgets,
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// The connected account in whose name it is asked.
    pub account: Option<String>,
    pub at: Instant,
}

#[derive(Default)]
pub struct Book {
    /// By path, oldest first; Stripe's lists are shown the other way round.
    pub items: BTreeMap<String, Vec<Value>>,
    /// How the paths, an account's behind its id, begin that are refused, and with what.
    pub refused: Option<(&'static str, StatusCode)>,
    /// Payouts that Stripe says it does not know.
    pub no_payouts: Vec<String>,
    /// What there is by its own path; of a connected account the path stands behind its id.
    pub objects: BTreeMap<String, Value>,
    /// Klaviyo's metrics and profiles, which pages have beside the list.
    pub beside: Vec<Value>,
    pub faults: VecDeque<Fault>,
    pub asked: Vec<Asked>,
    /// What happens while a page is made: appended to the events after each.
    pub arriving: VecDeque<Value>,
    /// How long each answer takes.
    pub pace: Duration,
    /// (left, seconds to the window's end), told with each success.
    pub window: Option<(u32, u32)>,
    pub page_limit: usize,
    last_page: BTreeMap<String, Value>,
}

#[derive(Clone)]
pub struct Provider {
    book: Arc<Mutex<Book>>,
    pub base: String,
}

pub const KEY: &str = "sk_test_of_the_tests";

impl Provider {
    pub fn start() -> Provider {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let provider = Provider { book: Arc::default(), base };
        provider.book().page_limit = 100;
        let app = Router::new().fallback(get(answer)).with_state(provider.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
            });
        });
        provider
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn with(self, path: &str, items: impl IntoIterator<Item = Value>) -> Provider {
        self.book().items.entry(path.to_owned()).or_default().extend(items);
        self
    }

    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.book().faults.extend(faults);
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.book().asked.iter().filter(|a| a.path == path).cloned().collect()
    }

    pub fn ids(&self, path: &str) -> Vec<String> {
        let mut ids: Vec<String> =
            self.book().items[path].iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}

async fn answer(
    State(provider): State<Provider>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let path = uri.path().to_owned();
    let account = headers.get("stripe-account").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (fault, pace) = {
        let mut book = provider.book();
        let (query, account) = (query.clone(), account.clone());
        book.asked.push(Asked { path: path.clone(), query, account, at: Instant::now() });
        (book.faults.pop_front(), book.pace)
    };
    tokio::time::sleep(pace).await;
    let key = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if key != format!("Bearer {KEY}") && key != format!("Klaviyo-API-Key {KEY}") {
        let fault = json!({"error": {"message": "Invalid API Key provided: sk_test_****xyz"}});
        return (StatusCode::UNAUTHORIZED, fault.to_string()).into_response();
    }
    match fault {
        Some(Fault::TooMany { retry_after: Some(seconds) }) => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response();
        }
        Some(Fault::TooMany { retry_after: None }) => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        Some(Fault::Fails) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Fault::Slow) => tokio::time::sleep(Duration::from_secs(2)).await,
        Some(Fault::Forgets) => return forgets(&path),
        _ => {}
    }
    let refused = provider.book().refused;
    let place = format!("{}{path}", account.as_deref().unwrap_or_default());
    if let Some((_, status)) = refused.filter(|(start, _)| place.starts_with(start)) {
        return (status, json!({"error": {"message": "not for this key"}}).to_string()).into_response();
    }
    // Lists are never asked for without a limit.
    if !query.contains_key("limit") && path.starts_with("/v1/") {
        return match provider.book().objects.get(&place) {
            Some(object) => object.to_string().into_response(),
            None => (
                StatusCode::NOT_FOUND,
                json!({"error": {"code": "resource_missing", "message": "No such object"}}).to_string(),
            )
                .into_response(),
        };
    }
    if query.get("payout").is_some_and(|payout| provider.book().no_payouts.contains(payout)) {
        let fault = json!({"error": {"code": "resource_missing", "message": "No such payout", "param": "payout"}});
        return (StatusCode::NOT_FOUND, fault.to_string()).into_response();
    }
    let (page, window) = {
        let mut book = provider.book();
        let old = book.last_page.get(&path).cloned();
        let page = match (fault, old) {
            (Some(Fault::OldPage), Some(old)) => old,
            _ => page(&book, &path, &query),
        };
        book.last_page.insert(path.clone(), page.clone());
        let arrived = path.ends_with("/events").then(|| book.arriving.pop_front()).flatten();
        if let Some(event) = arrived {
            book.items.entry(path.clone()).or_default().push(event);
        }
        (page.to_string(), book.window)
    };
    match fault {
        Some(Fault::HalfAPage) => page[..page.len() / 2].to_owned().into_response(),
        Some(Fault::CutMidBody) => {
            let half = Bytes::from(page[..page.len() / 2].to_owned());
            let pieces = [Ok(half), Err(std::io::Error::other("gone"))];
            Body::from_stream(futures::stream::iter(pieces)).into_response()
        }
        _ => match window {
            Some((left, reset)) => {
                let told = [("ratelimit-remaining", left.to_string()), ("ratelimit-reset", reset.to_string())];
                (told, page).into_response()
            }
            None => page.into_response(),
        },
    }
}

fn forgets(path: &str) -> Response {
    let fault = if path.starts_with("/v1/") {
        json!({"error": {"code": "resource_missing", "message": "No such event", "param": "starting_after"}})
    } else {
        json!({"errors": [{"detail": "Invalid cursor", "source": {"parameter": "page[cursor]"}}]})
    };
    (StatusCode::BAD_REQUEST, fault.to_string()).into_response()
}

fn page(book: &Book, path: &str, query: &BTreeMap<String, String>) -> Value {
    let none = Vec::new();
    let items = book.items.get(path).unwrap_or(&none);
    if path.starts_with("/v1/") {
        stripe_page(items, query, book.page_limit)
    } else {
        klaviyo_page(book, items, path, query)
    }
}

/// Newest first, from the item after `starting_after` on.
fn stripe_page(items: &[Value], query: &BTreeMap<String, String>, most: usize) -> Value {
    let bound = |key: &str, otherwise: i64| query.get(key).map_or(otherwise, |t| t.parse().unwrap());
    let window = bound("created[gte]", i64::MIN)..bound("created[lt]", i64::MAX);
    let mut newest: Vec<&Value> = items.iter().filter(|i| window.contains(&i["created"].as_i64().unwrap())).collect();
    newest.sort_by_key(|i| std::cmp::Reverse(i["created"].as_i64()));
    let from = query.get("starting_after").map_or(0, |id| 1 + newest.iter().position(|i| i["id"] == **id).unwrap());
    let size = most.min(query["limit"].parse().unwrap());
    let data: Vec<&Value> = newest.iter().skip(from).take(size).copied().collect();
    json!({"object": "list", "has_more": newest.len() > from + data.len(), "data": data})
}

/// Oldest first; the cursor is opaque to whoever reads it.
fn klaviyo_page(book: &Book, items: &[Value], path: &str, query: &BTreeMap<String, String>) -> Value {
    // Without a window, as whoever only asks whether we are there.
    let Some(field) = query.get("sort") else { return json!({"data": [], "links": {"self": "x"}}) };
    let bound = |word: &str| {
        let start = query["filter"].find(&format!("{word}({field},"))? + word.len() + field.len() + 2;
        let text = &query["filter"][start..];
        Some(chrono::DateTime::parse_from_rfc3339(&text[..text.find(')').unwrap()]).unwrap())
    };
    let (since, after, until) = (bound("greater-or-equal"), bound("greater-than"), bound("less-than").unwrap());
    let time = |i: &&Value| chrono::DateTime::parse_from_rfc3339(i["attributes"][field].as_str().unwrap()).unwrap();
    let mut all: Vec<&Value> = items.iter().collect();
    all.retain(|i| time(i) < until && since.is_none_or(|s| time(i) >= s) && after.is_none_or(|a| time(i) > a));
    all.sort_by_key(time);
    let from: usize = query.get("page[cursor]").map_or(0, |c| c.strip_prefix("c=").unwrap().parse().unwrap());
    let size = book.page_limit.min(query["page[size]"].parse().unwrap());
    let data: Vec<&Value> = all.iter().skip(from).take(size).copied().collect();
    let next = from + data.len();
    let next = (next < all.len()).then(|| format!("https://elsewhere.example{path}?page%5Bcursor%5D=c%3D{next}"));
    let related = |kind: &str, i: &&Value| i["relationships"][kind]["data"]["id"].clone();
    let named: Vec<Value> = data.iter().flat_map(|i| [related("metric", i), related("profile", i)]).collect();
    let included: Vec<&Value> = book.beside.iter().filter(|b| named.contains(&b["id"])).collect();
    json!({"data": data, "included": included, "links": {"self": "x", "next": next}})
}

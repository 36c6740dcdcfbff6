//! A provider that remembers what it was told: Twilio's Messages API and Klaviyo's events, with their bad days.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{NOW, shop::at};
use crate::{
    config::BaseUrl,
    server::{Listener, listen},
};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Yes,
    /// Takes the message, and the connection ends before the answer does.
    DiesAfterReading,
    /// Takes the message and answers 500.
    FailsAfterTaking,
    FailsWithoutTaking,
    /// Takes the message and never answers.
    Hangs,
    TooMany {
        retry_after: u32,
    },
    OptedOut,
}

#[derive(Debug, Clone)]
pub struct Text {
    pub sid: String,
    pub to: String,
    pub body: String,
}

#[derive(Default)]
struct Book {
    says: Option<Says>,
    posts: usize,
    texts: Vec<Text>,
    events: BTreeMap<String, Value>,
}

#[derive(Clone)]
pub struct Provider {
    book: Arc<Mutex<Book>>,
    pub base: BaseUrl,
}

impl Provider {
    pub async fn start() -> Provider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let provider = Provider { book: Arc::default(), base };
        let app = Router::new()
            .route("/2010-04-01/Accounts/AC1/Messages.json", post(take_text).get(list_texts))
            .route("/api/events", post(take_event))
            .with_state(provider.clone());
        tokio::spawn(async move {
            let (_never, stop) = watch::channel(false);
            listen(Listener::Public(listener), app, 64, stop).await;
        });
        provider
    }

    pub fn say(&self, says: Says) {
        self.book.lock().unwrap().says = Some(says);
    }

    /// The text messages that it took.
    pub fn sent(&self) -> Vec<Text> {
        self.book.lock().unwrap().texts.clone()
    }

    /// The events that it took, each once by its unique id.
    pub fn events(&self) -> Vec<Value> {
        self.book.lock().unwrap().events.values().cloned().collect()
    }

    /// How often anything was posted.
    pub fn posts(&self) -> usize {
        self.book.lock().unwrap().posts
    }

    /// Counts the request, lets `take` write it down where the mood allows, and answers.
    async fn answer(&self, take: impl FnOnce(&mut Book) -> Value) -> Response {
        let (says, taken) = {
            let mut book = self.book.lock().unwrap();
            book.posts += 1;
            let says = book.says.unwrap_or(Says::Yes);
            let takes = matches!(says, Says::Yes | Says::DiesAfterReading | Says::FailsAfterTaking | Says::Hangs);
            (says, takes.then(|| take(&mut book)))
        };
        match says {
            Says::Yes => (StatusCode::CREATED, taken.unwrap_or_default().to_string()).into_response(),
            Says::DiesAfterReading => {
                let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("gone")) });
                Body::from_stream(broken).into_response()
            }
            Says::FailsAfterTaking | Says::FailsWithoutTaking => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Says::Hangs => std::future::pending().await,
            Says::TooMany { retry_after } => {
                (StatusCode::TOO_MANY_REQUESTS, [("retry-after", retry_after.to_string())]).into_response()
            }
            Says::OptedOut => {
                let fault =
                    json!({"code": 21610, "message": "Attempt to send to unsubscribed recipient", "status": 400});
                (StatusCode::BAD_REQUEST, fault.to_string()).into_response()
            }
        }
    }
}

async fn take_text(State(provider): State<Provider>, body: Bytes) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    assert_eq!(form["MessagingServiceSid"], "MG1");
    assert_eq!(form["StatusCallback"], "https://till.example/webhooks/twilio/status");
    let take = |book: &mut Book| {
        let sid = format!("SM{:032}", book.texts.len());
        book.texts.push(Text { sid: sid.clone(), to: form["To"].clone(), body: form["Body"].clone() });
        json!({"sid": sid, "status": "queued"})
    };
    provider.answer(take).await
}

async fn list_texts(State(provider): State<Provider>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let created = chrono::DateTime::from_timestamp_micros(at(NOW).0).unwrap().to_rfc2822();
    let listed = |t: &Text| {
        json!({"sid": t.sid, "to": t.to, "body": t.body, "status": "sent", "error_code": null,
            "direction": "outbound-api", "date_created": created, "date_sent": null})
    };
    let messages: Vec<Value> = provider.sent().iter().filter(|t| t.to == query["To"]).map(listed).collect();
    json!({"messages": messages, "next_page_uri": null}).to_string().into_response()
}

async fn take_event(State(provider): State<Provider>, body: Bytes) -> Response {
    let event: Value = serde_json::from_slice(&body).unwrap();
    let take = |book: &mut Book| {
        let id = event["data"]["attributes"]["unique_id"].as_str().unwrap().to_owned();
        book.events.entry(id).or_insert(event);
        Value::Null
    };
    provider.answer(take).await
}

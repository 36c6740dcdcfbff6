//! What a provider's API lists, a page at a time, as the envelopes that its webhooks or files would have made.
//!
//! What must hold: a page is whole or an error; the same event makes the same envelope, however it came; a window's end
//! is fixed before its first page, so that nothing that happens meanwhile moves a page. Where the next page starts is a
//! text that the caller may keep, for hours and over a restart. Nothing here remembers or stores anything.

mod klaviyo;
mod stripe;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{klaviyo::KlaviyoApi, stripe::StripeApi};
use super::decode_or_keep;
use crate::{
    base::{Backoff, Envelope, Micros, Source, Via},
    net::{self, Client, NetError, Outcome, Request, Response},
};

/// The opened API of one provider. Clones share its limits: all calls of a process go by one clock.
#[derive(Clone)]
pub enum Api {
    Stripe(StripeApi),
    Klaviyo(KlaviyoApi),
}

/// A list of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    StripeEvents,
    StripeRefunds,
    StripeCharges,
    StripePaymentIntents,
    StripeSessions,
    StripeCustomers,
    StripeDisputes,
    StripeInvoices,
    StripeSubscriptions,
    StripePayouts,
    StripeWarnings,
    StripeReviews,
    StripeCoupons,
    StripeBalanceTransactions,
    KlaviyoEvents,
    KlaviyoProfiles,
}

impl List {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            List::StripeEvents => "Stripe's events",
            List::StripeRefunds => "Stripe's older refunds",
            List::StripeCharges => "Stripe's older charges",
            List::StripePaymentIntents => "Stripe's older payments",
            List::StripeSessions => "Stripe's older checkouts",
            List::StripeCustomers => "Stripe's older customers",
            List::StripeDisputes => "Stripe's older disputes",
            List::StripeInvoices => "Stripe's older invoices",
            List::StripeSubscriptions => "Stripe's older subscriptions",
            List::StripePayouts => "Stripe's older payouts",
            List::StripeWarnings => "Stripe's older fraud warnings",
            List::StripeReviews => "Stripe's older reviews",
            List::StripeCoupons => "Stripe's older coupons",
            List::StripeBalanceTransactions => "Stripe's balance transactions",
            List::KlaviyoEvents => "Klaviyo's events",
            List::KlaviyoProfiles => "Klaviyo's profiles",
        }
    }

    /// Whether it lists events that may have come another way too.
    pub fn is_of_events(self) -> bool {
        matches!(self, List::StripeEvents | List::KlaviyoEvents)
    }
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Included; `None`: from the beginning.
    pub since: Option<Micros>,
    /// Not included.
    pub until: Micros,
}

/// One list to be walked from its first page to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    pub list: List,
    pub window: Window,
}

#[derive(Debug)]
pub struct Page {
    pub envelopes: Vec<Envelope>,
    /// Where the next page starts; `None`: there is none.
    pub next: Option<String>,
    /// How far in time the walk is: of the page's last item, where it says.
    pub reached: Option<Micros>,
}

impl Page {
    /// False of the page before once more, which was asked for by `after`: to go on from it would be to go round for ever.
    fn leads_on(&self, after: Option<&str>) -> bool {
        self.next.is_none() || self.next.as_deref() != after
    }
}

/// Why a page could not be had. None of these shows a key.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "{provider} does not take our key ({status}): {detail}; see [{section}] api_key, which must be allowed {needs}"
    )]
    Key { provider: &'static str, section: &'static str, status: u16, detail: String, needs: &'static str },
    #[error("{provider} refused {path} ({status}): {detail}")]
    Refused { provider: &'static str, path: &'static str, status: u16, detail: String },
    #[error("{provider} knows no such object under {path}")]
    Absent { provider: &'static str, path: &'static str },
    #[error("{provider} could not be asked: {why}{}; what came is kept: the same command goes on from there", later(*wait))]
    Unreachable { provider: &'static str, why: String, wait: Option<Duration> },
    #[error("{provider} answered {path} with what is no page: {why}; what came before is kept: try again later")]
    NoPage { provider: &'static str, path: &'static str, why: String },
    #[error("{provider} does not know any more where the next page of {path} starts")]
    Expired { provider: &'static str, path: &'static str },
    #[error(transparent)]
    Net(#[from] NetError),
}

fn later(wait: Option<Duration>) -> String {
    wait.map(|w| format!("; it wants no request for {} s", w.as_secs())).unwrap_or_default()
}

/// Tries enough to bridge a minute's outage; what lasts longer is for the caller, who has kept what came.
const RETRY: net::Retry =
    net::Retry { tries: 9, first_wait: Duration::from_millis(250), longest_wait: Duration::from_secs(60) };
/// A page of a thousand full events takes a while to be written.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A proxy that serves an old page for a new one does so for a moment.
const STUCK_TRIES: u32 = 4;
const STUCK: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(4) };
/// Why such a page is none.
const STUCK_PAGE: &str = "it leads to itself";

impl Api {
    pub fn source(&self) -> Source {
        match self {
            Api::Stripe(_) => Source::Stripe,
            Api::Klaviyo(_) => Source::Klaviyo,
        }
    }

    /// The lists that together hold all that happened in the window, as far as the provider still has it.
    pub fn legs(&self, window: Window, now: Micros) -> Vec<Leg> {
        match self {
            Api::Stripe(_) => stripe::legs(window, now),
            Api::Klaviyo(_) => [List::KlaviyoEvents, List::KlaviyoProfiles].map(|list| Leg { list, window }).to_vec(),
        }
    }

    /// The page that starts at `after`; the first where there is none.
    pub async fn page(&self, leg: &Leg, after: Option<&str>) -> Result<Page, ApiError> {
        let mut tries = 1;
        loop {
            let page = match self {
                Api::Stripe(api) => api.page(leg, after).await?,
                Api::Klaviyo(api) => api.page(leg, after).await?,
            };
            if page.leads_on(after) {
                return Ok(page);
            }
            if tries == STUCK_TRIES {
                let (provider, path) = self.place(leg.list);
                return Err(ApiError::NoPage { provider, path, why: STUCK_PAGE.to_owned() });
            }
            tokio::time::sleep(STUCK.wait(tries)).await;
            tries += 1;
        }
    }

    /// Asks for as little as can be asked: whether the provider is there and takes the key.
    pub async fn probe(&self) -> Result<(), ApiError> {
        match self {
            Api::Stripe(api) => api.probe().await,
            Api::Klaviyo(api) => api.probe().await,
        }
    }

    fn place(&self, list: List) -> (&'static str, &'static str) {
        match self {
            Api::Stripe(_) => (stripe::PROVIDER, stripe::path(list)),
            Api::Klaviyo(_) => (klaviyo::PROVIDER, klaviyo::path(list)),
        }
    }
}

fn client(limits: Vec<net::Limit>) -> Result<Client, NetError> {
    Client::new(net::Options { timeout: TIMEOUT, retry: RETRY, limits, ..net::Options::default() })
}

/// The answer, if there is one; what it says is the provider's room to judge.
async fn ask(client: &Client, provider: &'static str, request: &Request) -> Result<Response, ApiError> {
    match client.send(request).await? {
        Outcome::Sent(response) => Ok(response),
        Outcome::Refused { why, retry_after } => Err(ApiError::Unreachable { provider, why, wait: retry_after }),
        Outcome::Unknown { why, .. } => Err(ApiError::Unreachable { provider, why, wait: None }),
    }
}

/// One item of a page. What cannot be an event is kept with its reason, as everywhere.
fn envelope(source: Source, item: Vec<u8>, received_at: Micros) -> Envelope {
    decode_or_keep(source, &item.into(), received_at).by(Via::Api)
}

/// With a query, encoded, where there is one.
fn with_query(address: &str, query: &[(&str, String)]) -> String {
    if query.is_empty() {
        return address.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{address}?{query}")
}

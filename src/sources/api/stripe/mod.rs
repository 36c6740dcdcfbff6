//! Stripe's API: List Events, which reaches 30 days back, and for what is older the lists of the objects themselves.
//!
//! Pages are walked from the newest to the oldest (`starting_after`) in a window whose end is fixed first. The other
//! way (`ending_before`) would need the oldest event's id to start from, and an event that became visible late, behind
//! the place where the walk is, would never be asked for again; windows can overlap. Events that arrive meanwhile are
//! after the window's end, and the next window's.

mod fetched;

use std::time::Duration;

use serde::Deserialize;

use self::fetched::{Answer, FETCHED, VERSION, asked_at, is_of, kind, listed_whole, object_of, read};

use super::{ApiError, Leg, List, Page, STUCK_PAGE, Window, ask, client, with_query};
use crate::{
    base::{Envelope, Micros, time::DAY},
    config::{self, BaseUrl, Secret},
    net::{Client, Limit, NetError, Request, Response},
};

pub(super) const PROVIDER: &str = "Stripe";

/// The most that Stripe gives at once.
const PAGE: &str = "100";
/// How far back List Events reaches.
const KEPT: i64 = 30 * DAY;
/// Objects are listed up to a day beyond that: a walk may take hours, and events at its far end expire meanwhile.
const MARGIN: i64 = DAY;
/// docs.stripe.com/rate-limits: to one endpoint, and to all of them with a live key (with a test key 25 too).
const A_SECOND: u32 = 25;
const A_SECOND_LIVE: u32 = 100;
/// Refunds before charges: what a refund came to is then known no later than the charge's total that counts it.
const OBJECTS: [List; 12] = [
    List::StripeRefunds,
    List::StripeCharges,
    List::StripePaymentIntents,
    List::StripeSessions,
    List::StripeCustomers,
    List::StripeDisputes,
    List::StripeInvoices,
    List::StripeSubscriptions,
    List::StripePayouts,
    List::StripeWarnings,
    List::StripeReviews,
    List::StripeCoupons,
];

#[derive(Clone)]
pub struct StripeApi {
    client: Client,
    base: BaseUrl,
    key: Secret,
    live: bool,
    /// In whose name it asks, where that is not the key's own account.
    account: Option<String>,
}

pub(super) fn path(list: List) -> &'static str {
    match list {
        List::StripeRefunds => "/v1/refunds",
        List::StripeCharges => "/v1/charges",
        List::StripePaymentIntents => "/v1/payment_intents",
        List::StripeSessions => "/v1/checkout/sessions",
        List::StripeCustomers => "/v1/customers",
        List::StripeDisputes => "/v1/disputes",
        List::StripeInvoices => "/v1/invoices",
        List::StripeSubscriptions => "/v1/subscriptions",
        List::StripePayouts => "/v1/payouts",
        List::StripeWarnings => "/v1/radar/early_fraud_warnings",
        List::StripeReviews => "/v1/reviews",
        List::StripeCoupons => "/v1/coupons",
        List::StripeBalanceTransactions => "/v1/balance_transactions",
        List::StripeEvents | List::KlaviyoEvents | List::KlaviyoProfiles => "/v1/events",
    }
}

/// What Stripe is to show whole where it would name it: of a subscription its discounts, which no list has. Four levels deep
/// is what it allows, so that an item's discount still names its coupon.
fn expanded(list: List, prefix: &'static str) -> impl Iterator<Item = (&'static str, String)> {
    let paths: &[&str] = match list {
        List::StripeSubscriptions => &["discounts.source.coupon", "items.data.discounts"],
        _ => &[],
    };
    paths.iter().map(move |path| ("expand[]", format!("{prefix}{path}")))
}

/// Events as far as they are kept, then the objects made before; and the balance transactions of all that time, which no
/// event tells of.
pub(super) fn legs(window: Window, now: Micros) -> Vec<Leg> {
    let horizon = now.plus(-KEPT);
    let Window { since, until } = window;
    let mut legs = Vec::new();
    if until > horizon {
        let since = since.map_or(horizon, |s| s.max(horizon));
        legs.push(Leg { list: List::StripeEvents, window: Window { since: Some(since), until } });
    }
    if since.is_none_or(|s| s < horizon) {
        let window = Window { since, until: until.min(horizon.plus(MARGIN)) };
        legs.extend(OBJECTS.map(|list| Leg { list, window }));
    }
    legs.push(Leg { list: List::StripeBalanceTransactions, window: Window { since, until } });
    legs
}

#[derive(Deserialize, Default)]
struct Fault {
    #[serde(default)]
    error: FaultBody,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FaultBody {
    code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

impl StripeApi {
    /// `None` where the settings lack a key.
    pub fn new(settings: &config::Stripe) -> Result<Option<StripeApi>, NetError> {
        let Some(key) = settings.api_key.clone() else { return Ok(None) };
        let live = ["sk_live_", "rk_live_"].iter().any(|start| key.expose().starts_with(start));
        let base = settings.api_base.clone();
        let limit = |prefix, requests| Limit { prefix, requests, per: Duration::from_secs(1) };
        let endpoints = OBJECTS.into_iter().chain([List::StripeEvents, List::StripeBalanceTransactions]);
        let mut limits: Vec<Limit> = endpoints.map(|list| limit(base.join(path(list)), A_SECOND)).collect();
        limits.push(limit(base.join("/"), if live { A_SECOND_LIVE } else { A_SECOND }));
        Ok(Some(StripeApi { client: client(limits)?, base, key, live, account: None }))
    }

    pub(super) async fn page(&self, leg: &Leg, after: Option<&str>) -> Result<Page, ApiError> {
        let path = path(leg.list);
        let mut query = vec![("limit", PAGE.to_owned()), ("created[lt]", leg.window.until.seconds().to_string())];
        query.extend(leg.window.since.map(|since| ("created[gte]", since.seconds().to_string())));
        query.extend(after.map(|id| ("starting_after", id.to_owned())));
        // Unless asked, Stripe leaves out those that are over.
        query.extend((leg.list == List::StripeSubscriptions).then(|| ("status", "all".to_owned())));
        query.extend(expanded(leg.list, "data."));
        let response = self.get(path, None, &query).await?;
        read((leg.list, None), &response.body, &self.answer(&response)).map_err(|why| ApiError::NoPage {
            provider: PROVIDER,
            path,
            why,
        })
    }

    pub(super) async fn probe(&self) -> Result<(), ApiError> {
        self.get(path(List::StripeEvents), None, &[("limit", "1".to_owned())]).await.map(|_| ())
    }

    /// Whether the key is of live mode. A key sees one world alone.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The object of this type and id, as the event that says what it is now; `None` where there is none.
    pub async fn object(&self, of_type: &str, id: &str) -> Result<Option<Envelope>, ApiError> {
        let has_type = |list: &List| kind(*list).and_then(|kind| kind.strip_suffix(FETCHED)) == Some(of_type);
        let Some(list) = OBJECTS.into_iter().chain([List::StripeBalanceTransactions]).find(has_type) else {
            return Ok(None);
        };
        let path = path(list);
        let query: Vec<_> = expanded(list, "").collect();
        let response = match self.get(path, Some(id), &query).await {
            Err(ApiError::Absent { .. }) => return Ok(None),
            response => response?,
        };
        object_of(list, &response.body, &self.answer(&response))
            .and_then(|told| is_of(told, of_type, id))
            .map(Some)
            .map_err(|why| ApiError::NoPage { provider: PROVIDER, path, why })
    }

    /// The movements that an automatic payout pays out, from the one after `after` on. The last page ends with our word that it
    /// is the last. `None`: Stripe knows no such payout.
    pub async fn paid_out(&self, payout: &str, after: Option<&str>) -> Result<Option<Page>, ApiError> {
        let path = path(List::StripeBalanceTransactions);
        let mut query = vec![("limit", PAGE.to_owned()), ("payout", payout.to_owned())];
        query.extend(after.map(|id| ("starting_after", id.to_owned())));
        let response = match self.get(path, None, &query).await {
            Err(ApiError::Absent { .. }) => return Ok(None),
            response => response?,
        };
        let answer = self.answer(&response);
        let listed = (List::StripeBalanceTransactions, Some(payout));
        let mut page = read(listed, &response.body, &answer)
            .and_then(|page| if page.leads_on(after) { Ok(page) } else { Err(STUCK_PAGE.to_owned()) })
            .map_err(|why| ApiError::NoPage { provider: PROVIDER, path, why })?;
        if page.next.is_none() {
            page.envelopes.push(listed_whole(payout, &answer));
        }
        Ok(Some(page))
    }

    /// The same of another account, one that is connected to the key's own.
    pub fn of_account(self, account: Option<String>) -> StripeApi {
        StripeApi { account, ..self }
    }

    fn answer(&self, response: &Response) -> Answer<'_> {
        let now = Micros::now();
        Answer { live: self.live, account: self.account.as_deref(), asked_at: asked_at(response, now), now }
    }

    /// Of a list, or of the object in it that has this id.
    async fn get(&self, path: &'static str, id: Option<&str>, query: &[(&str, String)]) -> Result<Response, ApiError> {
        let address = self.base.join(path);
        let address = id.map_or(address.clone(), |id| format!("{address}/{id}"));
        let request = Request::get(with_query(&address, query))
            .header("authorization", format!("Bearer {}", self.key.expose()))
            .header("stripe-version", VERSION)
            .wants_json();
        let request = match &self.account {
            Some(account) => request.header("stripe-account", account.clone()),
            None => request,
        };
        let response = ask(&self.client, PROVIDER, &request).await?;
        if response.is_success() {
            return Ok(response);
        }
        let fault: Fault = response.json().unwrap_or_default();
        let status = response.status;
        let detail = fault.error.message.unwrap_or_else(|| "it gave no reason".to_owned());
        Err(match status {
            401 | 403 => {
                let needs = "to read events, charges, refunds, payment intents, checkout sessions, customers, disputes, \
                             invoices, subscriptions, coupons, payouts, balance transactions, fraud warnings and reviews";
                ApiError::Key { provider: PROVIDER, section: "stripe", status, detail: without_key(detail), needs }
            }
            400 | 404 if fault.error.param.as_deref() == Some("starting_after") => {
                ApiError::Expired { provider: PROVIDER, path }
            }
            // A list that is of no such object.
            400 if fault.error.param.as_deref() == Some("payout") => ApiError::Absent { provider: PROVIDER, path },
            // Any proxy says 404; only Stripe says of what.
            404 if fault.error.code.as_deref() == Some("resource_missing") => {
                ApiError::Absent { provider: PROVIDER, path }
            }
            _ => ApiError::Refused { provider: PROVIDER, path, status, detail },
        })
    }
}

/// Stripe's own words quote the end of a key that it does not know.
fn without_key(detail: String) -> String {
    match detail.split_once(':') {
        Some((before, _)) => before.to_owned(),
        None => detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ObjectKey, Table};

    const NOW: Micros = Micros(1_800_000_000_000_000);

    #[test]
    fn whatever_a_row_is_asked_for_by_has_a_list() {
        let key = |table| ObjectKey { table, livemode: true, id: "x_1".to_owned() };
        let listed = |of: &str| OBJECTS.iter().any(|list| kind(*list) == Some(&*format!("{of}{FETCHED}")));
        let asked: Vec<ObjectKey> = Table::ALL.into_iter().map(key).filter(|key| key.asked_for().is_some()).collect();
        assert!(asked.len() > 10);
        let lacks: Vec<&ObjectKey> = asked.iter().filter(|key| !listed(key.asked_for().unwrap().0)).collect();
        assert!(lacks.iter().all(|key| key.table == Table::BalanceTransactions), "{lacks:?}");
    }

    #[test]
    fn events_reach_back_thirty_days_and_objects_the_rest() {
        let lists = |since: Option<i64>, until: i64| -> Vec<(List, Option<i64>, i64)> {
            let window = Window { since: since.map(|d| NOW.plus(-d * DAY)), until: NOW.plus(-until * DAY) };
            let days = |at: Micros| (NOW.0 - at.0) / DAY;
            legs(window, NOW).iter().map(|l| (l.list, l.window.since.map(days), days(l.window.until))).collect()
        };
        let balance = |since, until| (List::StripeBalanceTransactions, since, until);
        assert_eq!(lists(Some(3), 0), [(List::StripeEvents, Some(3), 0), balance(Some(3), 0)]);
        let all = lists(None, 0);
        assert_eq!(all[0], (List::StripeEvents, Some(30), 0));
        assert_eq!(all[1..13], OBJECTS.map(|list| (list, None, 29)));
        assert_eq!(all[13..], [balance(None, 0)]);
        let old = lists(Some(90), 60);
        assert_eq!(old[..12], OBJECTS.map(|list| (list, Some(90), 60)));
        assert_eq!(old[12..], [balance(Some(90), 60)]);
    }
}

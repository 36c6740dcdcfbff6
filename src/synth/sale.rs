//! Money on its way: a purchase, its payment intent, the charges that try to pay it. The simulator's own records, from
//! which both the events and the truth are written.
//!
//! Amounts are minor units of `currency`; times are microseconds since 1970 unless a name says seconds.

use super::{declines::Decline, people::Card};

/// Something to be paid: a cart, a month of a subscription, or a developer's test.
#[derive(Debug, Clone)]
pub(super) struct Purchase {
    pub person: u32,
    pub live: bool,
    pub amount: i64,
    pub currency: &'static str,
    pub order: Order,
    /// Has an account with a customer at Stripe; a guest has none.
    pub customer: Option<String>,
    /// A page of Stripe's own, in place of the shop's.
    pub session: Option<Session>,
    pub invoice: Option<String>,
    pub intent: Option<Intent>,
    /// Authorised at the sale, captured when it ships.
    pub captures_later: bool,
    /// The buyer's address at the time.
    pub email: String,
    /// The device it was begun on, where it was begun in the shop.
    pub device: Option<u8>,
    pub tries: u32,
    pub card: u8,
}

impl Purchase {
    pub fn description(&self) -> &'static str {
        description(self.invoice.is_some())
    }
}

fn description(invoiced: bool) -> &'static str {
    if invoiced { "Subscription" } else { "Corner Roastery order" }
}

/// What the shop itself writes on payments, to find them again.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    pub cart: Option<String>,
    pub order: Option<String>,
    /// Of the browser that paid.
    pub ip: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub id: String,
    pub created: i64,
    pub expires: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::RequiresPaymentMethod => "requires_payment_method",
            Status::RequiresAction => "requires_action",
            Status::Processing => "processing",
            Status::RequiresCapture => "requires_capture",
            Status::Succeeded => "succeeded",
            Status::Canceled => "canceled",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub id: String,
    pub created: i64,
    pub status: Status,
    pub received: i64,
    pub attempts: u32,
    /// How many of them the bank asked the buyer about.
    pub challenged: u32,
    pub latest_charge: Option<Box<Charge>>,
    pub error: Option<Failure>,
    pub canceled_at: Option<i64>,
    pub cancellation: Option<&'static str>,
}

/// What went wrong last, as the intent tells it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub code: &'static str,
    pub decline: Option<&'static str>,
    pub advice: Option<&'static str>,
    pub message: &'static str,
    pub charge: Option<String>,
    pub method: Method,
    pub method_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    Card { card: Card, wallet: Option<&'static str> },
    PayPal,
    Debit { last4: String },
}

impl Method {
    pub fn kind(&self) -> &'static str {
        match self {
            Method::Card { .. } => "card",
            Method::PayPal => "paypal",
            Method::Debit { .. } => "sepa_debit",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not known yet: a bank debit takes days.
    Pending,
    Authorised,
    Declined(&'static Decline),
    /// By Radar, for this reason; the network was not asked.
    Blocked(&'static str),
    /// The request could not be a payment: a test card in live mode.
    Invalid,
}

/// How the bank made sure that it was its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreeDs {
    pub flow: Option<&'static str>,
    pub result: &'static str,
    pub indicator: Option<&'static str>,
}

impl ThreeDs {
    pub const CHALLENGED: ThreeDs = ThreeDs { flow: Some("challenge"), result: "authenticated", indicator: Some("05") };
    pub const FRICTIONLESS: ThreeDs =
        ThreeDs { flow: Some("frictionless"), result: "authenticated", indicator: Some("05") };
    pub const ATTEMPTED: ThreeDs =
        ThreeDs { flow: Some("frictionless"), result: "attempt_acknowledged", indicator: Some("06") };
    pub const EXEMPTED: ThreeDs = ThreeDs { flow: None, result: "exempted", indicator: None };
    pub const BROKEN: ThreeDs = ThreeDs { flow: None, result: "processing_error", indicator: Some("07") };
}

/// One try to move the money.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub id: String,
    pub person: u32,
    pub live: bool,
    pub amount: i64,
    pub currency: &'static str,
    /// Seconds since 1970.
    pub created: i64,
    pub intent: Option<String>,
    pub customer: Option<String>,
    pub invoice: Option<String>,
    pub order: Order,
    pub email: String,
    pub method: Method,
    pub method_id: String,
    pub verdict: Verdict,
    pub risk: i64,
    pub three_ds: Option<ThreeDs>,
    pub captured: bool,
    pub refunded: i64,
    pub disputed: bool,
    pub balance: Option<String>,
    pub refunds: Vec<Refund>,
}

#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub id: String,
    pub amount: i64,
    pub created: i64,
    pub status: &'static str,
    pub reason: Option<&'static str>,
    pub failure: Option<&'static str>,
    pub balance: String,
    /// The bank has given its reference.
    pub settled: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Dispute {
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub reason: &'static str,
    pub status: &'static str,
    pub balance: String,
    /// Of the movement back, once it is won.
    pub reinstated: Option<String>,
    pub withdrawn: bool,
    pub answered: bool,
}

/// What [`super::catalog::MEMBERS_COUPON`] takes off one subscription.
#[derive(Debug, Clone)]
pub(super) struct Discount {
    pub id: String,
    /// When the coupon was made, in seconds since 1970.
    pub offered: i64,
}

/// A box of beans a month.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub id: String,
    pub item: String,
    pub person: u32,
    pub plan: (&'static str, &'static str),
    /// The plan's price, and what is charged after the discount.
    pub list: i64,
    pub amount: i64,
    pub discount: Option<Discount>,
    /// Seconds since 1970, as are the period's ends.
    pub created: i64,
    pub period: (i64, i64),
    pub cycle: u32,
    pub status: &'static str,
    pub cancels: bool,
    pub canceled_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub cancel_reason: Option<&'static str>,
    pub feedback: Option<&'static str>,
    pub method_id: Option<String>,
    pub invoice: Option<Invoice>,
    pub purchase: Option<Box<Purchase>>,
    /// As which it stands in the truth.
    pub counted: Option<&'static str>,
    /// The last two spans of time in which nothing of it changed.
    pub spans: [Option<Span>; 2],
    /// Whether tax is within its price.
    pub taxed: bool,
}

/// What a subscription was from a second on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub second: i64,
    pub status: &'static str,
    pub cancels: bool,
}

impl Subscription {
    /// Of an invoice's amount, the tax that is within it.
    pub fn tax(&self) -> Option<i64> {
        let percent = super::catalog::TAX.1;
        self.taxed.then(|| (self.amount * percent + (100 + percent) / 2) / (100 + percent))
    }

    pub fn price(&self) -> String {
        format!("price_{}", self.plan.0.replace('-', ""))
    }
}

/// All times in seconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Invoice {
    pub id: String,
    pub created: i64,
    pub finalized_at: Option<i64>,
    pub paid_at: Option<i64>,
    pub attempts: i64,
    pub next_attempt: Option<i64>,
    pub intent: Option<String>,
    /// As which it stands in the truth.
    pub counted: Option<&'static str>,
}

impl Invoice {
    pub fn status(&self) -> &'static str {
        match (self.paid_at, self.finalized_at) {
            (Some(_), _) => "paid",
            (None, Some(_)) => "open",
            (None, None) => "draft",
        }
    }
}

impl Charge {
    pub fn status(&self) -> &'static str {
        match self.verdict {
            Verdict::Pending => "pending",
            Verdict::Authorised => "succeeded",
            _ => "failed",
        }
    }

    pub fn amount_captured(&self) -> i64 {
        if self.captured { self.amount } else { 0 }
    }

    /// The contract's word for what became of it.
    pub fn outcome(&self) -> &'static str {
        match self.verdict {
            Verdict::Pending => "pending",
            Verdict::Authorised => "authorised",
            Verdict::Declined(_) => "issuer_declined",
            Verdict::Blocked(_) => "blocked",
            Verdict::Invalid => "invalid",
        }
    }

    pub fn decline(&self) -> Option<&'static Decline> {
        if let Verdict::Declined(decline) = self.verdict { Some(decline) } else { None }
    }

    /// Failed, and the code says that it was nobody's decision, or 3D Secure broke down on the way.
    pub fn is_technical(&self) -> bool {
        let broken = self.three_ds.is_some_and(|t| t.result == "processing_error");
        match self.verdict {
            Verdict::Declined(decline) => broken || decline.is_technical(),
            Verdict::Blocked(_) | Verdict::Invalid => broken,
            Verdict::Pending | Verdict::Authorised => false,
        }
    }

    pub fn description(&self) -> &'static str {
        description(self.invoice.is_some())
    }

    pub fn risk_level(&self) -> &'static str {
        match self.risk {
            75.. => "highest",
            65.. => "elevated",
            _ => "normal",
        }
    }
}

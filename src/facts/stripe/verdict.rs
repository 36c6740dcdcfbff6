//! What came of an attempt, why, and what to do about it.
//!
//! The reason is looked for in this order: the outcome's type (a block or an invalid request is no issuer's decline),
//! then the advice codes, then the decline code's own row. docs.stripe.com/declines.

use crate::base::decline;

/// What is known of how an attempt went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// `succeeded`, `pending` or `failed`.
    pub status: Option<&'a str>,
    /// `authorized`, `manual_review`, `issuer_declined`, `blocked`, `invalid`.
    pub outcome_type: Option<&'a str>,
    pub outcome_reason: Option<&'a str>,
    pub failure_code: Option<&'a str>,
    pub decline_code: Option<&'a str>,
    /// `card_error`, `api_error`, `invalid_request_error`, where an intent told of the failure.
    pub error_type: Option<&'a str>,
    pub network_status: Option<&'a str>,
    pub advice_code: Option<&'a str>,
    pub network_advice_code: Option<&'a str>,
    pub three_ds_result: Option<&'a str>,
    pub payment_method_type: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub outcome: &'static str,
    pub decline_code: Option<String>,
    pub category: Option<String>,
    pub retry_advice: Option<String>,
    pub is_technical: bool,
}

/// The failures that are the machinery's, not the payer's: what the SLO on technical success counts.
const TECHNICAL: [&str; 4] = ["processing_error", "issuer_not_available", "partner_payment_not_found", "api_error"];

/// Failures of the customer's authentication, before any issuer was asked for money.
const AUTHENTICATION: [&str; 3] =
    ["payment_intent_authentication_failure", "setup_intent_authentication_failure", "authentication_not_handled"];

impl Evidence<'_> {
    pub fn verdict(&self) -> Verdict {
        let outcome = self.outcome();
        let failed = !matches!(outcome, "authorised" | "pending");
        if !failed {
            return Verdict { outcome, decline_code: None, category: None, retry_advice: None, is_technical: false };
        }
        let decline_code = self.code();
        let is_technical =
            [decline_code, self.failure_code, self.error_type].iter().flatten().any(|c| TECHNICAL.contains(c))
                || self.three_ds_result == Some("processing_error");
        let (category, retry_advice) = self.reason(outcome, decline_code);
        Verdict {
            outcome,
            decline_code: decline_code.map(str::to_owned),
            category: category.map(str::to_owned),
            retry_advice: retry_advice.map(str::to_owned),
            is_technical,
        }
    }

    fn outcome(&self) -> &'static str {
        match (self.outcome_type, self.status) {
            (Some("invalid"), _) => "invalid",
            (Some("blocked"), _) => "blocked",
            (_, Some("succeeded")) => "authorised",
            (_, Some("pending")) => "pending",
            _ if self.failed_authentication() => "auth_failed",
            (Some(_), _) => "issuer_declined",
            // An intent told of the failure. Without a decline it never came to an issuer.
            (None, _) if self.error_type == Some("invalid_request_error") => "invalid",
            _ => "issuer_declined",
        }
    }

    fn failed_authentication(&self) -> bool {
        let code = [self.failure_code, self.decline_code].iter().flatten().any(|c| AUTHENTICATION.contains(c));
        let stopped = self.network_status.is_none_or(|s| s == "not_sent_to_network");
        let refused = matches!(self.three_ds_result, Some("failed" | "processing_error"));
        code || (stopped && refused)
    }

    /// The decline code proper: `card_declined` only says that there is one.
    fn code(&self) -> Option<&str> {
        let specific = |code: &&str| *code != "card_declined";
        self.decline_code.or(self.outcome_reason).or(self.failure_code.filter(specific)).or(self.failure_code)
    }

    fn reason(&self, outcome: &str, code: Option<&str>) -> (Option<&'static str>, Option<&'static str>) {
        let known = code.and_then(|c| decline::look_up(c, self.payment_method_type));
        let by_code = || known.map(|k| (k.category, k.retry_advice));
        let (category, own_advice) = match outcome {
            "blocked" => ("blocked_by_risk", self.advice_after_block()),
            "auth_failed" => ("authentication", "after_on_session_auth"),
            "invalid" => by_code().unwrap_or(("invalid_request", "check_first")),
            _ if self.error_type == Some("api_error") => ("technical", "retry_soon_then_later"),
            _ => by_code().unwrap_or(("unknown", "retry_later_spaced")),
        };
        (Some(category), Some(self.advised().unwrap_or(own_advice)))
    }

    /// What the issuer or the network says to do.
    fn advised(&self) -> Option<&'static str> {
        match (self.advice_code, self.network_advice_code) {
            (Some("do_not_try_again"), _) => Some("never"),
            (Some("confirm_card_data"), _) => Some("after_customer_fix"),
            (Some("try_again_later"), _) => Some("retry_later_spaced"),
            // Mastercard's merchant advice codes.
            (_, Some("03" | "21")) => Some("never"),
            (_, Some("01")) => Some("after_customer_fix"),
            (_, Some("02" | "24" | "25" | "26" | "27" | "28" | "29" | "30")) => Some("retry_later_spaced"),
            _ => None,
        }
    }

    fn advice_after_block(&self) -> &'static str {
        match self.outcome_reason {
            Some("low_probability_of_authorization") => "retry_later_spaced",
            _ => "never",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed<'a>() -> Evidence<'a> {
        Evidence { status: Some("failed"), ..Evidence::default() }
    }

    #[test]
    fn a_decline_is_the_issuers_and_its_code_says_what_to_do() {
        let v = Evidence {
            outcome_type: Some("issuer_declined"),
            outcome_reason: Some("insufficient_funds"),
            failure_code: Some("card_declined"),
            ..failed()
        }
        .verdict();
        assert_eq!((v.outcome, v.category.as_deref()), ("issuer_declined", Some("funds_or_limit")));
        assert_eq!(v.retry_advice.as_deref(), Some("retry_later_spaced"));
        assert!(!v.is_technical);
    }

    #[test]
    fn advice_of_the_network_outweighs_the_code() {
        let code = Evidence { outcome_reason: Some("insufficient_funds"), ..failed() };
        let network = Evidence { network_advice_code: Some("03"), ..code }.verdict();
        assert_eq!(network.retry_advice.as_deref(), Some("never"));
        let issuer =
            Evidence { advice_code: Some("try_again_later"), network_advice_code: Some("03"), ..code }.verdict();
        assert_eq!(issuer.retry_advice.as_deref(), Some("retry_later_spaced"));
    }

    #[test]
    fn blocks_and_failed_authentication_are_not_declines() {
        let blocked = Evidence {
            outcome_type: Some("blocked"),
            outcome_reason: Some("highest_risk_level"),
            failure_code: Some("card_declined"),
            ..failed()
        }
        .verdict();
        assert_eq!((blocked.outcome, blocked.category.as_deref()), ("blocked", Some("blocked_by_risk")));
        let auth = Evidence {
            failure_code: Some("payment_intent_authentication_failure"),
            error_type: Some("invalid_request_error"),
            ..failed()
        }
        .verdict();
        assert_eq!((auth.outcome, auth.category.as_deref()), ("auth_failed", Some("authentication")));
        // A soft decline was the issuer's answer.
        let soft = Evidence {
            outcome_type: Some("issuer_declined"),
            outcome_reason: Some("authentication_required"),
            network_status: Some("declined_by_network"),
            ..failed()
        }
        .verdict();
        assert_eq!((soft.outcome, soft.category.as_deref()), ("issuer_declined", Some("authentication")));
    }

    #[test]
    fn the_machinerys_failures_are_technical() {
        for code in TECHNICAL {
            assert!(Evidence { failure_code: Some(code), ..failed() }.verdict().is_technical, "{code}");
        }
        assert!(Evidence { three_ds_result: Some("processing_error"), ..failed() }.verdict().is_technical);
        let paid = Evidence { status: Some("succeeded"), three_ds_result: Some("processing_error"), ..failed() };
        assert!(!paid.verdict().is_technical);
    }

    #[test]
    fn a_code_of_next_year_is_unknown_and_not_an_error() {
        let v = Evidence { outcome_reason: Some("moon_phase"), ..failed() }.verdict();
        assert_eq!(v.category.as_deref(), Some("unknown"));
        assert_eq!(v.decline_code.as_deref(), Some("moon_phase"));
    }
}

//! How the sample shop's payments fail, and how often.
//!
//! Codes and their categories are those of `data/decline_codes.csv`; the shares are plausible ones for card-not-present
//! sales (too little money and the bank's unexplained "no" first), not measured ones.

use super::dice::Dice;
use crate::base::decline;

/// One way in which an issuer or a wallet says no.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decline {
    pub code: &'static str,
    /// Stripe's `failure_code` of the charge, `card_declined` for most.
    pub failure: &'static str,
    pub message: &'static str,
    /// Stripe's `outcome.advice_code`.
    pub advice: Option<&'static str>,
    /// The network's own code.
    pub network: &'static str,
    weight: u32,
    /// Of a hundred buyers, how many try again at once.
    pub persists: u32,
}

const fn decline(
    code: &'static str,
    failure: &'static str,
    advice: Option<&'static str>,
    network: &'static str,
    weight: u32,
    persists: u32,
) -> Decline {
    let message = match failure.as_bytes() {
        b"expired_card" => "Your card has expired.",
        b"incorrect_cvc" => "Your card's security code is incorrect.",
        b"incorrect_number" => "Your card number is incorrect.",
        b"processing_error" => "An error occurred while processing your card. Try again in a little bit.",
        b"authentication_required" => "Your card was declined. This transaction requires authentication.",
        b"payment_method_provider_decline" => "The payment method provider declined the payment.",
        _ => "Your card was declined.",
    };
    Decline { code, failure, message, advice, network, weight, persists }
}

const DECLINED: &str = "card_declined";
const PROVIDER: &str = "payment_method_provider_decline";
const LATER: Option<&str> = Some("try_again_later");
const CONFIRM: Option<&str> = Some("confirm_card_data");
const NEVER: Option<&str> = Some("do_not_try_again");

static CARD: &[Decline] = &[
    decline("insufficient_funds", DECLINED, LATER, "51", 300, 58),
    decline("generic_decline", DECLINED, None, "05", 150, 50),
    decline("do_not_honor", DECLINED, LATER, "05", 140, 50),
    decline("incorrect_cvc", "incorrect_cvc", CONFIRM, "N7", 70, 85),
    decline("expired_card", "expired_card", CONFIRM, "54", 60, 70),
    decline("transaction_not_allowed", DECLINED, NEVER, "57", 60, 45),
    decline("invalid_account", DECLINED, NEVER, "14", 30, 40),
    decline("card_velocity_exceeded", DECLINED, LATER, "65", 25, 35),
    decline("incorrect_number", "incorrect_number", CONFIRM, "14", 22, 85),
    decline("try_again_later", DECLINED, LATER, "19", 20, 60),
    decline("processing_error", "processing_error", LATER, "96", 17, 75),
    decline("fraudulent", DECLINED, NEVER, "59", 16, 20),
    decline("issuer_not_available", DECLINED, LATER, "91", 12, 75),
    decline("stolen_card", DECLINED, NEVER, "43", 12, 15),
    decline("call_issuer", DECLINED, LATER, "01", 10, 35),
    decline("card_not_supported", DECLINED, NEVER, "57", 10, 50),
    decline("incorrect_zip", "incorrect_zip", CONFIRM, "N7", 10, 80),
    decline("lost_card", DECLINED, NEVER, "41", 9, 15),
    decline("restricted_card", DECLINED, NEVER, "62", 8, 20),
    decline("pickup_card", DECLINED, NEVER, "04", 7, 15),
    decline("do_not_try_again", DECLINED, NEVER, "46", 6, 20),
    decline("withdrawal_count_limit_exceeded", DECLINED, LATER, "65", 6, 40),
    decline("duplicate_transaction", DECLINED, None, "94", 5, 30),
    decline("currency_not_supported", DECLINED, NEVER, "57", 4, 40),
];

/// Off session, a bank that wants its customer present says so.
static AUTHENTICATION: Decline = decline("authentication_required", "authentication_required", CONFIRM, "1A", 0, 0);

static PAYPAL: &[Decline] = &[
    decline("partner_generic_decline", PROVIDER, None, "", 50, 55),
    decline("insufficient_funds", PROVIDER, None, "", 22, 60),
    decline("partner_high_risk_customer", PROVIDER, None, "", 10, 20),
    decline("payment_limit_exceeded", PROVIDER, None, "", 8, 50),
    decline("processing_error", PROVIDER, None, "", 6, 70),
    decline("invalid_customer_account", PROVIDER, None, "", 4, 50),
];

static DEBIT: &[Decline] = &[
    decline("insufficient_funds", PROVIDER, None, "", 70, 0),
    decline("invalid_customer_account", PROVIDER, None, "", 25, 0),
    decline("processing_error", PROVIDER, None, "", 5, 0),
];

/// A reason for which the issuer of a card says no; `off_session` where nobody is there to answer it.
pub(super) fn of_card(dice: &mut Dice, off_session: bool, strong: bool) -> &'static Decline {
    if off_session && dice.chance(if strong { 0.3 } else { 0.04 }) {
        return &AUTHENTICATION;
    }
    dice.weighted(CARD, |d| d.weight)
}

/// A reason for which PayPal or the bank of a direct debit says no.
pub(super) fn of_provider(dice: &mut Dice, kind: &str) -> &'static Decline {
    dice.weighted(if kind == "paypal" { PAYPAL } else { DEBIT }, |d| d.weight)
}

/// What a burst of stolen numbers meets.
pub(super) fn of_tested_card(dice: &mut Dice) -> &'static Decline {
    let usual = [(1, 55), (3, 20), (6, 10), (8, 8), (13, 7)];
    &CARD[dice.weighted(&usual, |u: &(usize, u32)| u.1).0]
}

impl Decline {
    pub fn category(&self, method: &str) -> &'static str {
        decline::look_up(self.code, Some(method)).map_or("unknown", |c| c.category)
    }

    /// Nobody's decision: something did not work.
    pub fn is_technical(&self) -> bool {
        matches!(self.code, "processing_error" | "issuer_not_available" | "partner_payment_not_found")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_known_one() {
        for (declines, method) in [(CARD, "card"), (PAYPAL, "paypal"), (DEBIT, "sepa_debit")] {
            for decline in declines {
                assert_ne!(decline.category(method), "unknown", "{} {method}", decline.code);
            }
        }
        assert_eq!(AUTHENTICATION.category("card"), "authentication");
    }

    #[test]
    fn the_burst_meets_what_stolen_numbers_meet() {
        let mut dice = Dice::new(1, 0);
        for _ in 0..100 {
            let code = of_tested_card(&mut dice).code;
            assert!(
                ["generic_decline", "incorrect_cvc", "invalid_account", "incorrect_number", "stolen_card"]
                    .contains(&code),
                "{code}"
            );
        }
    }
}

//! Why payments fail: Stripe's decline codes, with the kind of reason and what to do about it.
//!
//! The table is `data/decline_codes.csv` (docs.stripe.com/declines/codes); codes are an open set, and one that it does
//! not hold is `unknown`, never an error.

use std::{collections::HashMap, sync::LazyLock};

/// What is known of one code for one family of payment methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclineCode {
    pub code: &'static str,
    /// `card`, or `lpm` for the local methods, whose codes overlap with other meanings.
    pub kind: &'static str,
    /// `funds_or_limit`, `card_data`, `authentication`, `fraud`, …
    pub category: &'static str,
    /// `retry_later_spaced`, `after_customer_fix`, `never`, …
    pub retry_advice: &'static str,
    /// `customer` or `merchant`.
    pub who_acts: &'static str,
    /// The customer must not be told this reason (a lost or stolen card).
    pub mask_from_customer: bool,
    pub next_step: &'static str,
}

static CODES: LazyLock<Vec<DeclineCode>> = LazyLock::new(|| {
    include_str!("../../data/decline_codes.csv")
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut cells = line.splitn(9, ',');
            let mut next = || cells.next();
            let (code, kind, category, _retryable) = (next()?, next()?, next()?, next()?);
            let (retry_advice, who_acts, mask, _hard, step) = (next()?, next()?, next()?, next()?, next()?);
            let (mask_from_customer, next_step) = (mask == "1", step.trim_matches('"'));
            Some(DeclineCode { code, kind, category, retry_advice, who_acts, mask_from_customer, next_step })
        })
        .collect()
});

static BY_CODE: LazyLock<HashMap<(&str, bool), &DeclineCode>> =
    LazyLock::new(|| CODES.iter().map(|c| ((c.code, c.kind == "card"), c)).collect());

/// All codes, in the file's order.
pub fn all() -> &'static [DeclineCode] {
    &CODES
}

/// What is known of `code`. `payment_method_type` decides between a card's meaning and a local method's; where only
/// the other family knows the code, that one is taken.
pub fn look_up(code: &str, payment_method_type: Option<&str>) -> Option<&'static DeclineCode> {
    let card = payment_method_type.is_none_or(|t| t.starts_with("card"));
    BY_CODE.get(&(code, card)).or_else(|| BY_CODE.get(&(code, !card))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let lines = include_str!("../../data/decline_codes.csv").lines().count();
        assert_eq!(all().len(), lines - 1);
        assert_eq!(all().len(), 73);
    }

    #[test]
    fn one_code_means_two_things() {
        assert_eq!(look_up("expired_card", Some("card")).unwrap().category, "card_data");
        assert_eq!(look_up("expired_card", Some("paypal")).unwrap().category, "lpm_account");
        assert!(look_up("stolen_card", None).unwrap().mask_from_customer);
        assert!(look_up("a_code_of_next_year", None).is_none());
    }
}

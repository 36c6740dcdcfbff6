//! Shapes that several of Stripe's objects share: cards, billing details, outcomes.

use crate::facts::json::{Flag, Maybe, Text, Whole, object};

object! {
    /// A card as `payment_method_details.card`; or a charge's `source` of the years before payment methods, which is a
    /// card, or a source that holds one.
    #[derive(Clone)]
    pub(super) struct Card<'a> {
        object: Text<'a>,
        kind: Text<'a> = "type",
        card: Maybe<Card<'a>>,
        owner: Maybe<Billing<'a>>,
        pub brand: Text<'a>,
        pub country: Text<'a>,
        pub fingerprint: Text<'a>,
        pub funding: Text<'a>,
        /// Its first digits, where the account may see them.
        pub iin: Text<'a>,
        pub last4: Text<'a>,
        pub wallet: Maybe<Wallet<'a>>,
        /// How a wallet was told before there was `wallet`.
        pub tokenization_method: Text<'a>,
        pub three_d_secure: Maybe<ThreeDs<'a>>,
        pub checks: Maybe<Checks<'a>>,
        pub cvc_check: Text<'a>,
        pub address_zip_check: Text<'a>,
        pub address_line1_check: Text<'a>,
    }
}

impl<'a> Card<'a> {
    /// Of a `source`: `card`, or the source's own type. A card's `type` was once its brand.
    pub fn method(&self) -> Option<String> {
        if self.object.is("source") { self.kind.owned() } else { self.object.owned() }
    }

    /// Of a `source`: the card that it is or holds.
    pub fn card(&self) -> Option<&Card<'a>> {
        if self.object.is("source") { self.card.get() } else { Some(self) }
    }

    /// Of a `source`: whose it is.
    pub fn owner(&self) -> Option<&Billing<'a>> {
        self.owner.get()
    }

    /// As newer versions write it: `visa`, `amex`.
    pub fn brand(&self) -> Option<String> {
        let brand = self.brand.get()?.to_ascii_lowercase();
        Some(match brand.as_str() {
            "american express" => "amex".to_owned(),
            "diners club" => "diners".to_owned(),
            _ => brand,
        })
    }

    pub fn wallet(&self) -> Option<String> {
        let kind = self.wallet.get().and_then(|w| w.kind.owned());
        kind.or_else(|| self.tokenization_method.owned())
    }

    pub fn cvc_check(&self) -> Option<String> {
        self.checks.get().and_then(|c| c.cvc_check.owned()).or_else(|| self.cvc_check.owned())
    }

    pub fn postal_code_check(&self) -> Option<String> {
        let check = self.checks.get().and_then(|c| c.address_postal_code_check.owned());
        check.or_else(|| self.address_zip_check.owned())
    }

    pub fn address_check(&self) -> Option<String> {
        let check = self.checks.get().and_then(|c| c.address_line1_check.owned());
        check.or_else(|| self.address_line1_check.owned())
    }

    pub fn three_ds(&self) -> Option<&ThreeDs<'_>> {
        self.three_d_secure.get()
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Wallet<'a> {
        kind: Text<'a> = "type",
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Checks<'a> {
        cvc_check: Text<'a>,
        address_line1_check: Text<'a>,
        address_postal_code_check: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct ThreeDs<'a> {
        result: Text<'a>,
        pub result_reason: Text<'a>,
        pub authentication_flow: Text<'a>,
        pub electronic_commerce_indicator: Text<'a>,
        pub exemption_indicator: Text<'a>,
        /// How the result was told before there was `result`.
        authenticated: Flag,
        succeeded: Flag,
    }
}

impl ThreeDs<'_> {
    pub fn result(&self) -> Option<&str> {
        self.result.get().or(match (self.authenticated.0, self.succeeded.0) {
            (Some(true), _) => Some("authenticated"),
            (_, Some(true)) => Some("attempt_acknowledged"),
            (_, Some(false)) => Some("failed"),
            _ => None,
        })
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct MethodDetails<'a> {
        pub kind: Text<'a> = "type",
        card: Maybe<Card<'a>>,
        card_present: Maybe<Card<'a>>,
    }
}

impl<'a> MethodDetails<'a> {
    pub fn card(&self) -> Option<&Card<'a>> {
        self.card.get().or(self.card_present.get())
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Billing<'a> {
        pub address: Maybe<Address<'a>>,
        pub email: Text<'a>,
        pub name: Text<'a>,
        pub phone: Text<'a>,
    }
}

impl Billing<'_> {
    pub fn country(&self) -> Option<&str> {
        self.address.get().and_then(|a| a.country.get())
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Address<'a> {
        pub country: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Outcome<'a> {
        pub kind: Text<'a> = "type",
        pub reason: Text<'a>,
        pub network_status: Text<'a>,
        pub risk_level: Text<'a>,
        pub risk_score: Whole,
        pub advice_code: Text<'a>,
        pub network_advice_code: Text<'a>,
        pub network_decline_code: Text<'a>,
    }
}

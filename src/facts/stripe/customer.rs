//! Customers. A deletion may say no more than the id: then the row keeps what was known.

use super::{DecodeError, Event, Mark, Message, Metadata, Saw, Seen, Step, Table, parts::Billing};
use crate::facts::{
    identity::IdentifierKind,
    json::{Amount, Flag, List, Maybe, OnlyId, Reference, Text, Whole, object},
    rows,
};

object! {
    #[derive(Clone)]
    struct Customer<'a> {
        id: Text<'a>,
        object: Text<'a>,
        /// `balance` before 2019.
        account_balance: Amount,
        address: Maybe<super::parts::Address<'a>>,
        balance: Amount,
        created: Whole,
        currency: Text<'a>,
        default_source: Reference<'a, OnlyId<'a>>,
        deleted: Flag,
        delinquent: Flag,
        email: Text<'a>,
        invoice_settings: Maybe<InvoiceSettings<'a>>,
        metadata: Maybe<Metadata<'a>>,
        name: Text<'a>,
        phone: Text<'a>,
        preferred_locales: List<Text<'a>>,
        shipping: Maybe<Billing<'a>>,
        /// Cards on file, before payment methods.
        sources: List<Maybe<SourceCountry<'a>>>,
        tax_exempt: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    struct InvoiceSettings<'a> {
        default_payment_method: Reference<'a, OnlyId<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct SourceCountry<'a> {
        country: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Customer> = Message::of(event)?;
    let customer = &message.object;
    if customer.object.get().is_some_and(|o| o != "customer") {
        return Ok(false);
    }
    let id = event.required("data.object.id", customer.id.get())?;
    let (state, prior) = message.digests(event)?;
    let deleted = event.kind() == "customer.deleted" || customer.deleted.is_true();
    let row = customer.row(event, id)?;
    let (phase, rank) = match event.kind() {
        "customer.created" => (0, 0),
        "customer.updated" | "customer.fetched" => (1, 1),
        _ => (2, 2),
    };
    let step = Step { settled: u8::from(deleted), phase, rank, ..Step::default() };
    let unborn = customer.created.0.is_none();
    let marks = [(unborn && !deleted, Mark::Seen), (deleted, Mark::Deleted)];
    let marks = marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| (mark, event.at())).collect();
    let seen = Seen { whole: !(deleted && unborn), ..Seen::own(state, prior) };
    let (table, id, row) = (Table::Customers, id.to_owned(), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

impl Customer<'_> {
    fn row(&self, event: &mut Event, id: &str) -> Result<rows::Customer, DecodeError> {
        let mut someone = event.someone();
        let address = self.address.get().and_then(|a| a.country.get());
        let shipping = self.shipping.get();
        let card = || self.sources.iter().filter_map(Maybe::get).find_map(|s| s.country.get());
        let country = someone.lives_in(address.or(shipping.and_then(Billing::country)).or_else(card));
        let email_hash = someone.email(self.email.get());
        let phone = self.phone.get().or(shipping.and_then(|s| s.phone.get()));
        let phone_hash = someone.phone(phone, country.as_deref());
        let locale = self.preferred_locales.iter().find_map(Text::get);
        someone.speaks(locale);
        someone.known_as(IdentifierKind::Customer, Some(id));
        if let Some(metadata) = self.metadata.get() {
            metadata.name_payer(&mut someone);
        }
        someone.named(self.name.get().or(shipping.and_then(|s| s.name.get())));
        let person_id = someone.person();
        event.keep(someone);
        let settings = self.invoice_settings.get();
        let balance = event.signed_amount("data.object.balance", &self.balance)?;
        let older = event.signed_amount("data.object.account_balance", &self.account_balance)?;
        Ok(rows::Customer {
            customer_id: id.to_owned(),
            created_at: self.created.seconds(),
            deleted_at: None,
            person_id,
            email_hash,
            phone_hash,
            country,
            locale: locale.map(str::to_owned),
            currency: event.currency("data.object.currency", self.currency.get())?,
            balance: balance.or(older),
            tax_exempt: self.tax_exempt.owned(),
            default_payment_method: settings
                .and_then(|s| s.default_payment_method.id_owned())
                .or(self.default_source.id_owned()),
            delinquent: self.delinquent.0,
            order_ambiguous: false,
        })
    }
}

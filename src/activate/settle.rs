//! Messages of which nobody knows whether they went out: asking the provider, never sending again.
//!
//! A provider that tells repetitions apart (Klaviyo, by the message key) is asked by handing it the same message once
//! more, if the rules still allow it. Where the provider knows nothing of a message long enough, it was never sent, and
//! says so: it has failed, and is not tried again.

use std::{collections::HashMap, sync::Arc};

use super::{
    Activator,
    channel::{Answer, Channel, Parcel},
    dispatch::Dispatched,
    error::ActivateError,
    knowledge::Knowledge,
    message::{Message, State},
    patience,
    rules::{Stage, Verdict},
};
use crate::{
    base::{
        Micros, PersonId,
        time::{HOUR, MINUTE},
    },
    engine::Session,
};

/// Questions in one dispatch.
const AT_ONCE: usize = 100;
/// Twilio holds a message in its queue for ten hours at most: what it does not know after this was never taken.
const NEVER_TAKEN: i64 = 11 * HOUR;
/// Between two questions: as long as the message is old, within these.
const SHORTEST: i64 = MINUTE;
const LONGEST: i64 = 6 * HOUR;

impl Activator {
    pub(super) async fn settle(&self, session: &Session, now: Micros) -> Result<Dispatched, ActivateError> {
        let mut dispatched = Dispatched::default();
        let unknown: Vec<Message> =
            self.outbox.unsettled(now, AT_ONCE)?.into_iter().filter(|m| m.state == State::Unknown).collect();
        if unknown.is_empty() {
            return Ok(dispatched);
        }
        let (known, names) = self.known_of(session, unknown.iter()).await?;
        for message in &unknown {
            self.settle_one(message, &known, &names, now, &mut dispatched).await?;
        }
        self.outbox.log(&self.log).await?;
        Ok(dispatched)
    }

    async fn settle_one(
        &self,
        message: &Message,
        known: &Knowledge,
        names: &HashMap<String, PersonId>,
        now: Micros,
        dispatched: &mut Dispatched,
    ) -> Result<(), ActivateError> {
        let provider = message.provider.as_deref().unwrap_or_default();
        let age = message.claimed_for(now);
        if !message.is_ours() && age < patience(&self.log) {
            let why = "another process is to say what became of it";
            return self.outbox.postpone(&message.key, now.plus(patience(&self.log) - age), why);
        }
        let again = now.plus(age.clamp(SHORTEST, LONGEST));
        let Some(channel) = self.provider(message, provider) else {
            let why = format!("it may have gone out by {provider}, which is no longer configured");
            return self.outbox.postpone(&message.key, again, &why);
        };
        let address = match message.destination_hash.as_str() {
            "" => None,
            hash => self.vault.get(message.medium.address_kind(), hash)?,
        };
        let Some(address) = address.or_else(|| (!channel.leaves()).then(String::new)) else {
            let why = format!("it may have gone out by {provider}; the address to ask about is not known");
            return self.outbox.postpone(&message.key, again, &why);
        };
        let person = names.get(&message.key.0).unwrap_or(&message.person_id);
        if channel.asks_by_sending()
            && let Some(why) = self.forbids(known, message, person, now)?
        {
            let why = format!("not known whether it went out by {provider}, and not sent again: {why}");
            return self.settled(message, (State::Failed, None, Some(why)), now, &address, dispatched);
        }
        let parcel = Parcel { message, address: &address, text: message.text.as_ref(), now };
        let taken = |id: &str| self.outbox.by_provider_id(id).ok().flatten().is_some_and(|m| m.key != message.key);
        match channel.ask(&parcel, &taken).await {
            Answer::Has { state, provider_id, why } => {
                self.settled(message, (state, provider_id, why), now, &address, dispatched)
            }
            Answer::Nothing if age > NEVER_TAKEN => {
                let why = format!("never reached {provider}, which has no record of it");
                self.settled(message, (State::Failed, None, Some(why)), now, &address, dispatched)
            }
            Answer::Nothing => {
                let why = format!("it may have gone out by {provider}, which has no record of it yet");
                self.outbox.postpone(&message.key, again, &why)
            }
            Answer::Silent { why } => {
                dispatched.faults.push(why.clone());
                self.outbox.postpone(&message.key, again, &why)
            }
        }
    }

    fn settled(
        &self,
        message: &Message,
        (state, provider_id, why): (State, Option<String>, Option<String>),
        now: Micros,
        address: &str,
        dispatched: &mut Dispatched,
    ) -> Result<(), ActivateError> {
        let changed = self.outbox.change(&message.key, state, now, |m| {
            m.provider_id = provider_id.or(m.provider_id.take());
            m.reason = why;
        })?;
        if let Some(changed) = changed {
            dispatched.add(&changed, (!address.is_empty()).then_some(address));
        }
        Ok(())
    }

    /// The channel that a message was claimed for.
    fn provider(&self, message: &Message, name: &str) -> Option<&Arc<dyn Channel>> {
        self.channels.get(&message.medium).into_iter().chain([&self.record_only]).find(|c| c.name() == name)
    }

    /// Why a message may not be handed over once more. It counted against its own cap already.
    fn forbids(
        &self,
        known: &Knowledge,
        message: &Message,
        person: &PersonId,
        now: Micros,
    ) -> Result<Option<String>, ActivateError> {
        if message.text.is_none() {
            return Ok(Some("its text was lost with the store".to_owned()));
        }
        Ok(match self.assess(known, message, person, None, (Stage::Sending, &[]), now)?.verdict {
            Verdict::Refused(refusal) => Some(refusal.to_string()),
            Verdict::Go | Verdict::Wait { .. } => None,
        })
    }
}

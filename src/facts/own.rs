//! Our own records: what became of the messages we sent, whom we must not write to, what money was worth, and what was wrong
//! here.
//!
//! Each record tells a part of a message's life. The furthest state leads, whatever came in which order, and what it
//! leaves open is filled from the earlier ones.

use super::{
    DecodeError, alerts,
    decode::Event,
    erasure,
    json::{Text, Whole, object},
    observation::{Mark, Observation, Sight, Step},
    rates,
    rows::Message,
    suppression::{self, Word},
    table::Table,
};
use crate::base::{Micros, PersonId};

object! {
    struct Record<'a> {
        message_key: Text<'a>,
        person_id: Text<'a>,
        trigger: Text<'a>,
        channel: Text<'a>,
        provider: Text<'a>,
        provider_id: Text<'a>,
        template: Text<'a>,
        destination_hash: Text<'a>,
        at: Whole,
        reason: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    if event.kind() == erasure::RECORD {
        event.decoded.handled = true;
        return erasure::decode(event);
    }
    if [alerts::RAISED, alerts::CLEARED].contains(&event.kind()) {
        event.decoded.handled = true;
        return alerts::decode(event);
    }
    let record: Record = event.read()?;
    let at = record.at.0.map_or(event.at(), Micros);
    event.decoded.handled = match event.kind().split_once('.') {
        Some(("message", state)) => message(event, &record, state, at)?,
        Some(("suppression", "added")) => {
            suppression(event, &record, at)?;
            true
        }
        Some(("fx", "rates")) => {
            rates::decode(event)?;
            true
        }
        // What it brings stands in the event that it names: see `load`.
        Some(("quarantine", "retried")) => true,
        _ => false,
    };
    Ok(())
}

fn message(event: &mut Event, record: &Record, state: &str, at: Micros) -> Result<bool, DecodeError> {
    let (lane, mark) = match state {
        "queued" => (0, Some(Mark::Queued)),
        "claimed" => (1, Some(Mark::Claimed)),
        "unknown" => (2, None),
        "sent" => (3, Some(Mark::Sent)),
        "delivered" | "failed" | "skipped" => (4, Some(Mark::Settled)),
        _ => return Ok(false),
    };
    let key = event.required("message_key", record.message_key.get())?;
    let row = Message {
        message_key: key.to_owned(),
        person_id: record.person_id.owned().map(PersonId),
        trigger: record.trigger.owned(),
        channel: record.channel.owned(),
        state: state.to_owned(),
        provider: record.provider.owned(),
        provider_id: record.provider_id.owned(),
        template: record.template.owned(),
        destination_hash: record.destination_hash.owned(),
        queued_at: None,
        claimed_at: None,
        sent_at: None,
        settled_at: None,
        reason: record.reason.owned(),
    };
    let envelope = event.envelope;
    let sight = Sight {
        at,
        own: true,
        whole: true,
        step: Step { lane, ..Step::default() },
        event_id: envelope.event_id.clone(),
        event_digest: envelope.digest,
        account: None,
        state: envelope.digest,
        prior: None,
        row: row.into(),
    };
    let marks = mark.map(|mark| (mark, at)).into_iter().collect();
    let key = event.key(Table::Messages, key);
    event.decoded.observations.push(Observation { key, sight: Some(sight), marks, parts: Vec::new() });
    Ok(true)
}

fn suppression(event: &mut Event, record: &Record, at: Micros) -> Result<(), DecodeError> {
    let channel = event.required("channel", record.channel.get())?;
    let destination_hash = event.required("destination_hash", record.destination_hash.get())?;
    // What a provider told us when we sent is its word: whoever lifts it there lifts it here.
    let source = record.provider.get().unwrap_or("tillstream");
    let reason = record.reason.owned();
    suppression::say(event, Word { channel, destination_hash, reason, at, source, lifted: false });
    Ok(())
}

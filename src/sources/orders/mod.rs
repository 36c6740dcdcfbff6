//! Past orders from a file, CSV or Parquet: one envelope an invoice.
//!
//! What must hold: an amount is exact or the invoice is rejected. Rows of one invoice may lie anywhere in the file, so all
//! are gathered before the first envelope is made; memory grows with the file's rows (some 100 bytes each).
//!
//! | event type | an invoice |
//! |---|---|
//! | `order.imported` | that somebody paid |
//! | `order.refunded` | that cancels (UCI: its number starts with C); its amount is positive |
//! | `order.anonymous` | without a customer |
//! | `order.empty` | with a customer, but no line that counts |
//! | `order.unpaid` | that the shop itself calls unpaid |
//!
//! A line counts when its quantity and its price are above 0 (in a cancellation, the quantity below); the others stay in
//! the payload, marked `"counted": false`. A cell that cannot be read rejects its invoice, with the row and column.

mod decimal;
mod gather;
mod invoice;
mod mapping;
mod table;
mod times;

use std::{path::Path, sync::Arc};

use super::{
    content::{Content, FileError, Meter},
    files::{Batch, Options},
};
use crate::base::Micros;
use gather::{Gathering, Item, Names};
pub use mapping::OrdersMapping;
use table::Table;

/// The event type of an order that names no customer.
pub const ANONYMOUS: &str = "order.anonymous";

/// As many as a group commit of the log takes at once.
const BATCH: usize = 512;

/// The orders of one file.
pub(super) struct Orders {
    meter: Meter,
    received_at: Micros,
    names: Arc<Names>,
    state: State,
}

enum State {
    Unread(Box<Gathering>),
    /// What is still to be handed out, first row first.
    Read(std::vec::IntoIter<Item>),
}

impl Orders {
    /// Reads the header only; the error tells what is lacking.
    pub fn new(content: Content, path: Option<&Path>, options: &Options) -> Result<Orders, FileError> {
        let meter = content.meter.clone();
        let file = content.file.clone();
        let not_orders = |why| FileError::NotOrders { file: file.clone(), why };
        let table = Table::open(content, path).map_err(not_orders)?;
        let plan = options.orders.plan(&table.columns).map_err(not_orders)?;
        let names = Arc::new(Names::of(&plan, &table.columns));
        let gathering = Gathering::new(file, table, plan, names.clone(), options.zone);
        Ok(Orders { meter, received_at: options.received_at, names, state: State::Unread(Box::new(gathering)) })
    }

    pub fn next(&mut self) -> Option<Result<Batch, FileError>> {
        if let State::Unread(gathering) = &mut self.state {
            let gathered = gathering.all();
            self.meter.finish();
            let (items, error) = match gathered {
                Ok(items) => (items, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            self.state = State::Read(items.into_iter());
            if let Some(error) = error {
                return Some(Err(error));
            }
        }
        let State::Read(items) = &mut self.state else { return None };
        let mut batch = Batch::default();
        for item in items.take(BATCH) {
            batch.read += item.rows();
            let envelope = item.envelope(&self.names, self.received_at);
            batch.bytes += envelope.payload.len() as u64;
            batch.add(envelope);
        }
        (!batch.envelopes.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests;

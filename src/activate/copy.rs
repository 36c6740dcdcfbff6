//! `segments.memberships`: the copy of the memberships that SQL reads, and from which a lost store is made again.
//!
//! The store is the truth; the copy is replaced whole when it lags, and lags at most by one look that died half way.

use std::sync::Arc;

use datafusion::arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use serde::Deserialize;

use super::{
    Activator,
    error::ActivateError,
    knowledge,
    members::{MemberKey, Span},
};
use crate::{base::PersonId, engine::Session};

/// As SQL names it.
pub const TABLE: &str = "segments.memberships";

impl Activator {
    /// Brings the copy up to the store, where it lags.
    pub(super) async fn copy_memberships(&self) -> Result<(), ActivateError> {
        if !self.members.copy_is_stale()? {
            return Ok(());
        }
        let batch = batch(&self.merchant, &self.members.spans()?)?;
        self.lake.replace(TABLE, schema(), vec![batch], None).await?;
        self.lake.publish();
        let mut done = self.store.batch();
        self.members.copy_is_fresh(&mut done);
        Ok(done.commit()?)
    }

    /// Reads the copy, as of the session's snapshot.
    pub(super) async fn copied_memberships(&self, session: &Session) -> Result<Vec<Span>, ActivateError> {
        if !session.tables().iter().any(|t| t == TABLE) {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT segment, person_id, occurrence, entered_at, exited_at, livemode FROM {TABLE}");
        Ok(session.rows::<SpanRow>(&sql).await?.into_iter().map(SpanRow::span).collect())
    }
}

#[derive(Deserialize)]
struct SpanRow {
    segment: String,
    person_id: String,
    occurrence: String,
    entered_at: String,
    exited_at: Option<String>,
    livemode: bool,
}

impl SpanRow {
    fn span(self) -> Span {
        Span {
            segment: self.segment,
            key: MemberKey {
                person_id: PersonId(self.person_id),
                occurrence: self.occurrence,
                livemode: self.livemode,
            },
            entered_at: knowledge::time(&self.entered_at),
            exited_at: self.exited_at.as_deref().map(knowledge::time),
        }
    }
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("segment", DataType::Utf8, false),
        Field::new("person_id", DataType::Utf8, false),
        Field::new("occurrence", DataType::Utf8, false),
        Field::new("entered_at", time.clone(), false),
        Field::new("exited_at", time, true),
        Field::new("merchant_id", DataType::Utf8, false),
        Field::new("livemode", DataType::Boolean, false),
    ]))
}

fn batch(merchant: &str, spans: &[Span]) -> Result<RecordBatch, ActivateError> {
    let text = |of: fn(&Span) -> &str| Arc::new(spans.iter().map(|s| Some(of(s))).collect::<StringArray>()) as ArrayRef;
    let entered =
        spans.iter().map(|s| Some(s.entered_at.0)).collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let exited =
        spans.iter().map(|s| s.exited_at.map(|at| at.0)).collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        text(|s| &s.segment),
        text(|s| &s.key.person_id.0),
        text(|s| &s.key.occurrence),
        Arc::new(entered),
        Arc::new(exited),
        Arc::new(spans.iter().map(|_| Some(merchant)).collect::<StringArray>()),
        Arc::new(BooleanArray::from_iter(spans.iter().map(|s| Some(s.key.livemode)))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|source| ActivateError::Rows { what: TABLE.to_owned(), source })
}

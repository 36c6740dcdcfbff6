//! All that is kept of a person, for whoever asks what that is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Instance, OpsError};
use crate::{
    base::{Micros, progress::Silent},
    facts::erasure::Erasure,
    load::events_about,
};

/// One row that is theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// A table or view, or `vault`, where texts are kept for messages.
    pub table: String,
    pub row: Value,
}

impl Instance {
    /// What is kept of `person` (see [`Instance::erase`]): texts, the rows of every table that names them, and their events.
    ///
    /// # Errors
    /// Nobody, or more than one, is known by it.
    pub async fn export(&self, person: &str) -> Result<Vec<Held>, OpsError> {
        self.load(&Silent).await?;
        let mut held = Vec::new();
        for (livemode, component) in self.whom(person.trim()).await? {
            let person = self.known(livemode, &component)?;
            let sought = self.sought(&person, livemode).await?;
            for text in &sought.contacts {
                held.push(Held {
                    table: "vault".to_owned(),
                    row: json!({ "kind": text.kind, "text": text.plaintext }),
                });
            }
            self.rows_of(&person, livemode, &mut held).await?;
            for event in events_about(&self.lake, &self.decoder(), sought).await? {
                let (offset, event) = (event.offset, event.envelope);
                let text = String::from_utf8_lossy(&event.payload);
                let payload: Value = serde_json::from_str(&text).unwrap_or_else(|_| text.into());
                let row = json!({ "log_offset": offset.0, "source": event.source.as_str(), "event_id": event.event_id,
                    "type": event.event_type, "occurred_at": event.occurred_at.to_string(), "payload": payload });
                held.push(Held { table: "raw.events".to_owned(), row });
            }
        }
        Ok(held)
    }

    /// The rows of all tables and views that say whose they are.
    async fn rows_of(&self, person: &Erasure, livemode: bool, held: &mut Vec<Held>) -> Result<(), OpsError> {
        #[derive(Deserialize)]
        struct Named {
            table_schema: String,
            table_name: String,
            has_livemode: i64,
        }
        let tables = "SELECT table_schema, table_name, count(*) FILTER (WHERE column_name = 'livemode') AS has_livemode \
                      FROM information_schema.columns WHERE table_schema IN ('core', 'marts', 'segments', 'ops') \
                      GROUP BY 1, 2 HAVING count(*) FILTER (WHERE column_name = 'person_id') > 0 ORDER BY 1, 2";
        let session = self.session(Micros::now())?;
        for Named { table_schema, table_name, has_livemode } in session.rows(tables).await? {
            let table = format!("{table_schema}.{table_name}");
            let world = if has_livemode > 0 { format!(" AND livemode = {livemode}") } else { String::new() };
            let sql = format!("SELECT * FROM {table} WHERE person_id = '{}'{world}", person.person_id);
            let rows: Vec<Map<String, Value>> = session.rows(&sql).await?;
            held.extend(rows.into_iter().map(|row| Held { table: table.clone(), row: row.into() }));
        }
        Ok(())
    }
}

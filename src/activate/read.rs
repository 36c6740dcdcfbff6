//! Rows of a session's queries as plain values.

use std::{collections::BTreeSet, fmt::Display};

use serde::de::DeserializeOwned;

use super::error::ActivateError;
use crate::engine::Session;

/// Ids in one `IN (…)`: far below the longest query text.
const LISTED: usize = 500;
/// From this many ids on the whole table is read once, rather than in many small parts.
const WHOLE: usize = 2000;

/// The rows of `sql` whose `column` is one of `ids`. `sql` ends in a `WHERE` clause that can be added to with `AND`.
pub async fn rows_of<T: DeserializeOwned>(
    session: &Session,
    sql: &str,
    column: &str,
    ids: &BTreeSet<String>,
) -> Result<Vec<T>, ActivateError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    if ids.len() > WHOLE {
        return Ok(session.rows(sql).await?);
    }
    let ids: Vec<&String> = ids.iter().collect();
    let mut all = Vec::new();
    for part in ids.chunks(LISTED) {
        all.extend(session.rows::<T>(&format!("{sql} AND {column} IN ({})", quoted(part))).await?);
    }
    Ok(all)
}

fn quoted<T: Display>(ids: &[T]) -> String {
    let quoted: Vec<String> = ids.iter().map(|id| format!("'{}'", id.to_string().replace('\'', "''"))).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_quotes() {
        assert_eq!(quoted(&["a", "b' OR ''='"]), "'a', 'b'' OR ''''='''");
    }
}

//! Rows of a query as plain values, for our own code that asks in SQL.

use datafusion::arrow::json::writer::{JsonArray, WriterBuilder};
use serde::de::DeserializeOwned;

use super::{Session, SqlError};

impl Session {
    /// All rows of a query; `T` names its columns. Times come as RFC 3339 text.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, SqlError> {
        let batches = self.query(sql).await?.collect().await?;
        let unreadable =
            |e: &dyn std::fmt::Display| SqlError::internal(format!("the rows of a query cannot be read: {e}"));
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
        for batch in &batches {
            writer.write(batch).map_err(|e| unreadable(&e))?;
        }
        writer.finish().map_err(|e| unreadable(&e))?;
        let json = writer.into_inner();
        if json.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&json).map_err(|e| unreadable(&e))
    }
}

//! Rows that are seen from memory before they are committed.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;

use super::fold_in::{objects, overlaid, versions};
use super::{TABLE, append, at, number, query, rows};
use crate::lake::{Lake, Tail, changes_of};

/// A new object is seen among the changes and committed to the base, in whatever order the two tables are committed.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_on_its_way_to_the_base_is_never_out_of_sight() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let changes = changes_of(TABLE);
    let put = async |table: &str, of: &[(i64, i64, i64)], last| {
        lake.append(table, objects(), &[], vec![versions(of)], at(last)).await.unwrap();
        lake.publish();
        overlaid(&lake.snapshot()).await
    };
    lake.append(TABLE, objects(), &[], vec![versions(&[(1, 10, 0)])], at(0)).await.unwrap();
    put(&changes, &[(1, 11, 1)], 1).await;
    let mut tail = Tail::of("load");
    tail.lay_over(&changes, versions(&[(1, 12, 2), (2, 20, 3)]));
    assert!(lake.publish_with(tail.clone()));
    let expected = [["ch_1", "12"], ["ch_2", "20"]];
    assert_eq!(overlaid(&lake.snapshot()).await, expected);
    let mut in_their_tables = Tail::of("load");
    in_their_tables.append(&changes, 3, versions(&[(1, 12, 2)]));
    in_their_tables.append(TABLE, 3, versions(&[(2, 20, 3)]));
    lake.replace_in_tail(&tail, in_their_tables);
    assert_eq!(overlaid(&lake.snapshot()).await, expected, "neither is committed");
    assert_eq!(put(&changes, &[(1, 12, 2)], 3).await, expected, "the changes are committed, the base is not");
    assert_eq!(put(TABLE, &[(2, 20, 3)], 3).await, expected, "both are committed");
    assert!(lake.publish_with(Tail::default()));
    assert_eq!(overlaid(&lake.snapshot()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_seen_once_before_and_after_its_commit() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let mut tail = Tail::of("load");
    tail.append(TABLE, 5, rows(0..5));
    assert!(lake.publish_with(tail.clone()));
    let seen = "SELECT count(*) * 100 + count(DISTINCT amount) FROM charges";
    let hot = lake.snapshot();
    assert_eq!((number(&hot, seen).await, hot.rows(TABLE), hot.files(TABLE)), (505, Some(5), None));

    tail.append(TABLE, 8, rows(5..8));
    assert!(lake.publish_with(tail.clone()));
    assert_eq!(number(&lake.snapshot(), seen).await, 808);
    assert_eq!(number(&lake.snapshot(), "SELECT count(*) FROM charges WHERE amount >= 4").await, 4);
    assert_eq!(query(&lake.snapshot(), "SELECT charge_id FROM charges WHERE amount = 6").await, [["ch_000006"]]);
    assert_eq!(query(&lake.snapshot(), "SELECT amount FROM charges LIMIT 2").await.len(), 2);

    // The commit is made, and whoever publishes next knows nothing of the tail.
    assert!(append(&lake, 0..8, 8).await);
    assert_eq!(number(&lake.snapshot(), seen).await, 808);
    lake.publish();
    assert_eq!((number(&lake.snapshot(), seen).await, lake.snapshot().rows(TABLE)), (808, Some(8)));
    assert_eq!(number(&hot, seen).await, 505, "an old snapshot stays as it was");

    // Rows after the commit are seen beside its files, partitions and all.
    tail.append(TABLE, 9, rows(8..9));
    assert!(lake.publish_with(tail));
    assert_eq!(number(&lake.snapshot(), seen).await, 909);
    let day = "SELECT count(*) FROM charges WHERE day = DATE '2024-10-04'";
    assert_eq!(number(&lake.snapshot(), day).await, 9);

    // A column that the table lacks comes by a commit.
    let mut wider = Tail::of("load");
    let other = Arc::new(Schema::new(vec![Field::new("note", DataType::Utf8, true)]));
    let notes = StringArray::from(vec!["first"]);
    wider.append(TABLE, 10, RecordBatch::try_new(other, vec![Arc::new(notes)]).unwrap());
    assert!(!lake.publish_with(wider));
    assert_eq!(number(&lake.snapshot(), seen).await, 909);
}

//! Changes beside their base, and laid into it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use super::{TABLE, at, files_below, published};
use crate::lake::{Lake, Snapshot, changes_of, overlay};

pub fn objects() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("charge_id", DataType::Utf8, false),
        Field::new("amount", DataType::Int64, false),
        Field::new("livemode", DataType::Boolean, false),
        Field::new("log_offset", DataType::Int64, false),
    ]))
}

/// Versions of objects `ch_<n>`: number, amount, offset.
pub fn versions(of: &[(i64, i64, i64)]) -> RecordBatch {
    let column = |pick: fn(&(i64, i64, i64)) -> i64| Int64Array::from_iter_values(of.iter().map(pick));
    RecordBatch::try_new(
        objects(),
        vec![
            Arc::new(StringArray::from_iter_values(of.iter().map(|v| format!("ch_{}", v.0)))),
            Arc::new(column(|v| v.1)),
            Arc::new(arrow::array::BooleanArray::from(vec![true; of.len()])),
            Arc::new(column(|v| v.2)),
        ],
    )
    .unwrap()
}

/// Object and amount, as a reader of base and changes sees them.
pub async fn overlaid(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let changes = snapshot.provider(&changes_of(TABLE)).unwrap();
    let plan = overlay::laid_over(snapshot.provider(TABLE).unwrap(), changes, "charge_id", &objects());
    let rows = SessionContext::new().execute_logical_plan(plan.unwrap().build().unwrap()).await.unwrap();
    let rows = rows.select_columns(&["charge_id", "amount"]).unwrap().collect().await.unwrap();
    let cell = |b: &RecordBatch, row, column: usize| array_value_to_string(b.column(column), row).unwrap();
    let mut all: Vec<Vec<String>> =
        rows.iter().flat_map(|b| (0..b.num_rows()).map(|r| vec![cell(b, r, 0), cell(b, r, 1)])).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_folded_into_the_files_they_touch_beside_what_is_appended_meanwhile() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let changes = changes_of(TABLE);
    let put = |table: String, of: Vec<(i64, i64, i64)>| {
        let lake = lake.clone();
        async move {
            let last = of.iter().map(|v| v.2).max().unwrap();
            lake.append(&table, objects(), &[], vec![versions(&of)], at(last)).await.unwrap();
        }
    };
    // Three files; an object of the second has changed twice.
    for (n, first) in [0, 10, 20].into_iter().enumerate() {
        put(TABLE.to_owned(), (first..first + 10).map(|i| (i, i, n as i64)).collect()).await;
    }
    put(changes.clone(), vec![(12, 500, 10)]).await;
    put(changes.clone(), vec![(12, 501, 11)]).await;
    let before = overlaid(&published(&lake)).await;
    let untouched = files_below(&dir.path().join("core/charges"), ".parquet").len();
    assert_eq!(untouched, 3);

    // As often as it can beside a writer: no object is ever missing, doubled, or older than it was.
    let written = AtomicBool::new(false);
    let writer = {
        let (changes, written) = (changes.clone(), &written);
        async move {
            for n in 20..60 {
                put(changes.clone(), vec![(n % 30, 1000 + n, n)]).await;
                put(TABLE.to_owned(), vec![(n + 100, 0, n)]).await;
            }
            written.store(true, Ordering::Release);
        }
    };
    assert!(lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap());
    let folded = published(&lake);
    assert_eq!(overlaid(&folded).await, before);
    assert_eq!((folded.rows(TABLE), folded.rows(&changes)), (Some(30), Some(0)));
    assert_eq!(files_below(&dir.path().join("core/charges"), ".parquet").len(), 4, "one file was written again");

    let folding = async {
        let mut folds = 0;
        while !written.load(Ordering::Acquire) {
            folds += u32::from(lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap());
            let seen = overlaid(&published(&lake)).await;
            let ids: std::collections::BTreeSet<&String> = seen.iter().map(|r| &r[0]).collect();
            assert_eq!(ids.len(), seen.len(), "an object is there twice");
            assert!(seen.iter().any(|r| r[0] == "ch_12" && r[1].parse::<i64>().unwrap() >= 501));
        }
        folds
    };
    let ((), folds) = tokio::join!(writer, folding);
    assert!(folds > 0);
    lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap();
    let end = published(&lake);
    assert_eq!((end.rows(TABLE), end.rows(&changes)), (Some(70), Some(0)));
    let found = overlaid(&end).await;
    assert!(found.contains(&vec!["ch_29".to_owned(), "1059".to_owned()]), "{found:?}");
    assert_eq!(found, overlaid(&Lake::open(dir.path()).await.unwrap().snapshot()).await);
}

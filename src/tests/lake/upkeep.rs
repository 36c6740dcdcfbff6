//! Upkeep: few files, and no answer that changes by it.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::{TABLE, append, at, files_below, number, published, query, rows, schema};
use crate::lake::{Lake, Upkeep};

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_keeps_answers_and_positions_and_lowers_the_number_of_files() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for n in 0..150 {
        assert!(append(&lake, n * 10..(n + 1) * 10, n).await);
    }
    let answer = "SELECT count(*), sum(amount), min(created_at), max(charge_id) FROM charges";
    let before = published(&lake);
    let expected = query(&before, answer).await;
    assert_eq!(before.files(TABLE), Some(150));

    let eager = Upkeep { keep_log: Duration::ZERO, ..Upkeep::default() };
    let done = lake.maintain_with(&eager).await.unwrap();
    assert_eq!((done.files_merged, done.files_made, done.checkpoints), (150, 1, 1));
    assert!(done.log_files_deleted > 100, "{done:?}");
    let after = published(&lake);
    assert_eq!(after.files(TABLE), Some(1));
    assert_eq!(query(&after, answer).await, expected);
    assert_eq!(query(&before, answer).await, expected, "files of an older snapshot are kept");

    let now = Upkeep { keep_files: Duration::ZERO, keep_log: Duration::ZERO, ..Upkeep::default() };
    assert_eq!(lake.maintain_with(&now).await.unwrap().files_deleted, 150);
    assert_eq!(query(&lake.snapshot(), answer).await, expected);
    drop(lake);

    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.position(TABLE, "load"), Some(149));
    assert!(!append(&lake, 0..10, 149).await);
    assert!(append(&lake, 1500..1501, 150).await);
    assert_eq!(query(&lake.snapshot(), answer).await, expected);
    assert_eq!(lake.maintain().await.unwrap().checkpoints, 0, "a checkpoint is due only after many commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_runs_beside_appends() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    append(&lake, 0..1, 0).await;
    let writer = {
        let lake = lake.clone();
        tokio::spawn(async move {
            for n in 1..80 {
                assert!(append(&lake, n..n + 1, n).await);
            }
        })
    };
    let eager = Upkeep { commits: 5, alike: 2, keep_log: Duration::ZERO, ..Upkeep::default() };
    let mut merged = 0;
    while !writer.is_finished() {
        merged += lake.maintain_with(&eager).await.unwrap().files_merged;
    }
    writer.await.unwrap();
    assert!(merged > 0);
    assert_eq!(number(&published(&lake), "SELECT count(DISTINCT amount) * 1000 + count(*) FROM charges").await, 80_080);
    let reopened = Lake::open(dir.path()).await.unwrap();
    assert_eq!(
        number(&reopened.snapshot(), "SELECT count(DISTINCT amount) * 1000 + count(*) FROM charges").await,
        80_080
    );
}

/// A steady flow of small flushes with upkeep between them.
#[tokio::test(flavor = "multi_thread")]
async fn files_stay_few_under_a_steady_flow_and_readers_under_way_keep_theirs() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let keep_files = Duration::from_millis(1500);
    let upkeep = Upkeep { commits: 20, keep_files, keep_log: Duration::ZERO, ..Upkeep::default() };
    let (mut flushed, mut most, mut most_on_disk, mut most_in_log) = (0, 0, 0, 0);
    for round in 0..24 {
        for _ in 0..12 {
            assert!(append(&lake, flushed..flushed + 1, flushed).await);
            flushed += 1;
        }
        let reader = published(&lake);
        lake.maintain_with(&upkeep).await.unwrap();
        assert_eq!(number(&reader, "SELECT count(DISTINCT amount) FROM charges").await, flushed);
        let table = dir.path().join("core/charges");
        most = most.max(published(&lake).files(TABLE).unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
        if round >= 12 {
            most_on_disk = most_on_disk.max(files_below(&table, ".parquet").len());
            most_in_log = most_in_log.max(files_below(&table, ".json").len());
        }
    }
    assert_eq!(
        number(&published(&lake), "SELECT count(*) * 1000 + count(DISTINCT amount) FROM charges").await,
        288_288
    );
    assert!(most <= 8, "{most} files are read");
    // Twelve a round, and rounds of some 200 ms, are what the time that files are kept holds.
    assert!(most_on_disk <= 12 * 8 + 8, "{most_on_disk} files on disk");
    assert!(most_in_log <= 12 * 5, "{most_in_log} commits in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_does_not_keep_the_others_from_their_upkeep() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for n in 0..10 {
        for table in ["core.a", "core.b", "core.c"] {
            lake.append(table, schema(), &[], vec![rows(n..n + 1)], at(n)).await.unwrap();
        }
    }
    fs::remove_file(files_below(&dir.path().join("core/b"), ".parquet").pop().unwrap()).unwrap();
    let error = lake.maintain().await.unwrap_err();
    assert!(error.to_string().contains("core.b"), "{error}");
    let snapshot = published(&lake);
    assert_eq!(["core.a", "core.b", "core.c"].map(|t| snapshot.files(t).unwrap()), [1, 10, 1]);
}

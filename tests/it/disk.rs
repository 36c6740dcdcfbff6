//! A disk that is full, and one that fails: what was acknowledged stays, the rest is refused with a reason, and the next
//! start goes on as if nothing had happened.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures::StreamExt;

use crate::support::{Serving, Till, signature, text, wait};

const SECRET: &str = "whsec_of_the_tests";
const MIB: u64 = 1 << 20;

/// A small file system, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a line that says so, where this user may mount none.
    fn mount(dir: &Path, mib: u64) -> Option<SmallDisk> {
        fs::create_dir_all(dir).unwrap();
        let size = format!("size={mib}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tillstream-test"]).arg(dir).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir.to_owned())),
            Ok(output) => skipped(&text(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves room for so many bytes.
    fn fill(&self, left: u64) {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let ballast = (disk.f_bavail * disk.f_frsize).checked_sub(left).expect("the disk is larger than what it holds");
        let mut file = File::create(self.ballast()).unwrap();
        std::io::copy(&mut std::io::repeat(7).take(ballast), &mut file).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap().success());
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    println!("skipped: {}", why.trim());
    None
}

/// The events of a small shop, and the facts that they make.
fn shop(key: &Path) -> (Vec<String>, Vec<String>) {
    let clean = Till::with_key(key);
    let made = ["--customers", "300", "--days", "20", "--sources", "stripe", "--out", "shop.ndjson"];
    clean.run(&[&["--quiet", "generate"], &made[..]].concat());
    let file = clean.path("shop.ndjson");
    clean.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    let events: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    assert!(events.len() > 500, "there is something to lose");
    (events, clean.facts())
}

/// Posts events by eight senders at once: which of them were acknowledged, and what was said of the others.
fn post_all(serving: &Serving, events: &[String]) -> (BTreeSet<usize>, Vec<(u16, String)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, url) = (reqwest::Client::new(), serving.url("/webhooks/stripe"));
    let posts = events.iter().enumerate().map(|(i, event)| {
        let post = client.post(&url).header("Stripe-Signature", signature(SECRET, event)).body(event.clone());
        async move {
            match post.timeout(Duration::from_secs(30)).send().await {
                Ok(answer) => (i, answer.status().as_u16(), answer.text().await.unwrap_or_default()),
                Err(error) => (i, 0, error.to_string()),
            }
        }
    });
    let answers: Vec<_> = runtime.block_on(futures::stream::iter(posts).buffer_unordered(8).collect());
    let acknowledged = answers.iter().filter(|a| a.1 == 200).map(|a| a.0).collect();
    (acknowledged, answers.into_iter().filter(|a| a.1 != 200).map(|(_, status, said)| (status, said)).collect())
}

/// Every acknowledged event is there, none twice; with the rest sent again the facts are those of a clean run.
fn nothing_was_lost(till: &Till, acknowledged: impl Iterator<Item = String>, events: &[String], expected: &[String]) {
    let held: BTreeSet<String> = till
        .sql("SELECT event_id FROM raw.events")
        .iter()
        .map(|row| row["event_id"].as_str().unwrap().to_owned())
        .collect();
    for event in acknowledged {
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert!(held.contains(event["id"].as_str().unwrap()), "{} was acknowledged", event["id"]);
    }
    let serving = Serving::start(till);
    let (taken, refused) = post_all(&serving, events);
    assert!(taken.len() == events.len(), "{refused:?}");
    wait("all of it is loaded", Duration::from_secs(60), || {
        till.sql("SELECT count(*) AS n FROM ops.webhook_deliveries WHERE status = 'durable'")[0]["n"] == 0
    });
    drop(serving);
    let doubled = till.sql("SELECT event_id, digest FROM raw.events GROUP BY 1, 2 HAVING count(*) > 1");
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(till.facts() == expected, "the facts of a clean run");
}

#[test]
fn a_full_disk_refuses_with_its_reason_and_goes_on_when_there_is_room() {
    let till = Till::new();
    let key = till.write("key", [6u8; 32]);
    let (events, expected) = shop(&key);
    let till = till.set("PRIVACY__KEY_FILE", key.to_str().unwrap()).set("STRIPE__WEBHOOK_SECRETS", SECRET);
    let Some(disk) = SmallDisk::mount(&till.data(), 192) else { return };
    let (first, rest) = events.split_at(events.len() / 3);

    let mut serving = Serving::start(&till);
    let (before, refused) = post_all(&serving, first);
    assert!(before.len() == first.len(), "{refused:?}");
    // What the log keeps free for the later stages (5% of the disk), and a little that it may fill.
    disk.fill(192 * MIB / 20 + MIB / 4);
    let (after, refused) = post_all(&serving, rest);
    assert!(!after.is_empty() && refused.len() > 50, "{} taken, {} refused", after.len(), refused.len());
    for (status, said) in &refused {
        assert!(*status == 503 && said.contains("the disk is full; make room"), "{status} {said}");
    }
    // The disk stays full while what was taken is loaded: the room that the log left is for that.
    std::thread::sleep(Duration::from_secs(8));
    assert!(serving.child.try_wait().unwrap().is_none(), "serve goes on");
    let file = till.write("rest.ndjson", rest.join("\n"));
    let output = till.try_run(&["ingest", "stripe", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the disk is full; make room"), "{}", text(&output.stderr));

    fs::remove_file(disk.ballast()).unwrap();
    let (again, refused) = post_all(&serving, &rest[..20]);
    assert!(again.len() == 20, "with room it takes events again: {refused:?}");
    drop(serving);
    let acknowledged = first.iter().chain(after.iter().map(|i| &rest[*i])).cloned();
    nothing_was_lost(&till, acknowledged, &events, &expected);
}

#[test]
fn a_start_on_a_full_disk_loses_nothing_and_one_with_room_works() {
    let till = Till::new();
    let key = till.write("key", [6u8; 32]);
    let (events, expected) = shop(&key);
    let till = till.set("PRIVACY__KEY_FILE", key.to_str().unwrap()).set("STRIPE__WEBHOOK_SECRETS", SECRET);
    let Some(disk) = SmallDisk::mount(&till.data(), 192) else { return };
    let (first, rest) = events.split_at(events.len() / 2);
    let serving = Serving::start(&till);
    let (before, refused) = post_all(&serving, first);
    assert!(before.len() == first.len(), "{refused:?}");
    drop(serving);
    disk.fill(0);
    let serving = Serving::start(&till);
    let (after, refused) = post_all(&serving, rest);
    assert!(after.is_empty(), "{} taken", after.len());
    for (status, said) in &refused {
        assert!(*status == 503 && said.contains("the disk is full; make room"), "{status} {said}");
    }
    drop(serving);
    fs::remove_file(disk.ballast()).unwrap();
    nothing_was_lost(&till, first.iter().cloned(), &events, &expected);
}

/// `fsync` and `fdatasync` of files whose path holds a word, once there is a file that says so, fail as a bad disk's.
const BAD_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_bad(int fd) {
    const char *word = getenv("BAD_SYNC_WORD"), *when = getenv("BAD_SYNC_WHEN");
    char link[64], path[4096];
    if (!word || !when || access(when, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, word) != 0;
}

int fsync(int fd) {
    if (is_bad(fd)) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (is_bad(fd)) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"#;

/// `None`, and a line that says so, where no C compiler is.
fn bad_sync(till: &Till) -> Option<PathBuf> {
    let (source, library) = (till.write("bad_sync.c", BAD_SYNC), till.path("bad_sync.so"));
    match Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output() {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => skipped(&text(&output.stderr)),
        Err(error) => skipped(&format!("no C compiler: {error}")),
    }
}

/// What makes syncs of files fail whose path holds `word`, from when `when` is there.
fn fails<'a>(library: &'a Path, word: &'a str, when: &'a Path) -> [(&'static str, &'a Path); 3] {
    [("LD_PRELOAD", library), ("BAD_SYNC_WORD", Path::new(word)), ("BAD_SYNC_WHEN", when)]
}

#[test]
fn a_sync_that_fails_ends_serve_with_its_reason_and_loses_nothing() {
    let keys = Till::new();
    let key = keys.write("key", [6u8; 32]);
    let Some(library) = bad_sync(&keys) else { return };
    let (events, expected) = shop(&key);
    let (first, rest) = events.split_at(events.len() / 3);
    for word in ["/data/log/", "/data/state/"] {
        let till = Till::with_key(&key).set("STRIPE__WEBHOOK_SECRETS", SECRET);
        let (bad, told) = (till.path("the disk is bad"), till.path("stderr"));
        let mut serving = Serving::start_with(&till, |command| {
            command.envs(fails(&library, word, &bad)).stderr(File::create(&told).unwrap())
        });
        let (before, refused) = post_all(&serving, first);
        assert!(before.len() == first.len(), "{refused:?}");
        File::create(&bad).unwrap();
        let mut after = BTreeSet::new();
        let mut next = 0;
        // The state is synced now and then, when messages are looked at: events come all the while.
        wait("serve ends", Duration::from_secs(60), || {
            let few = &rest[next..rest.len().min(next + 20)];
            let (taken, refused) = post_all(&serving, few);
            for (status, said) in &refused {
                // Once it has ended nobody answers.
                assert!(*status == 0 || (*status == 503 && said.contains("takes no more events")), "{status} {said}");
            }
            after.extend(taken.iter().map(|i| next + i));
            next += few.len();
            std::thread::sleep(Duration::from_millis(200));
            serving.child.try_wait().unwrap().is_some()
        });
        assert_eq!(serving.child.wait().unwrap().code(), Some(1));
        let told = fs::read_to_string(told).unwrap();
        assert!(told.contains("error: the log takes no more events since"), "{told}");
        drop(serving);
        let acknowledged = first.iter().chain(after.iter().map(|i| &rest[*i])).cloned();
        nothing_was_lost(&till, acknowledged, &events, &expected);
    }
}

#[test]
fn tables_whose_files_cannot_be_synced_are_written_when_they_can() {
    let keys = Till::new();
    let key = keys.write("key", [6u8; 32]);
    let Some(library) = bad_sync(&keys) else { return };
    let (events, expected) = shop(&key);
    let till = Till::with_key(&key).set("STRIPE__WEBHOOK_SECRETS", SECRET);
    let bad = till.write("the disk is bad", "");
    let serving = Serving::start_with(&till, |command| command.envs(fails(&library, "/data/lake/", &bad)));
    let (taken, refused) = post_all(&serving, &events);
    assert!(taken.len() == events.len(), "the log goes on: {refused:?}");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(till.count("ops.loads"), 0, "nothing is committed");
    fs::remove_file(bad).unwrap();
    wait("all of it is committed", Duration::from_secs(60), || till.count("ops.loads") > 0);
    drop(serving);
    nothing_was_lost(&till, events.iter().cloned(), &events, &expected);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_told_without_a_fault_of_ours() {
    let shop = Till::new();
    shop.run(&[
        "--quiet",
        "generate",
        "--customers",
        "800",
        "--days",
        "30",
        "--sources",
        "storefront",
        "--out",
        "s.ndjson",
    ]);
    let file = shop.path("s.ndjson");
    let till = Till::new();
    let Some(_disk) = SmallDisk::mount(&till.data(), 6) else { return };
    for _ in 0..2 {
        let output = till.try_run(&["ingest", "storefront", file.to_str().unwrap()]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("full") || told.contains("No space left"), "{told}");
        assert!(!told.contains("a fault of the program"), "{told}");
    }
}

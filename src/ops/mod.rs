//! The opened data directory, and what its owner can be asked to do with it.
//!
//! One process owns a directory: it holds the lock for as long as an [`Instance`] lives. Everything that changes the
//! directory goes through here, whether a command asks in its own process or over the socket of a running `serve`.

mod alerts;
mod backfill;
mod doctor;
mod erase;
mod error;
mod export;
mod fx;
mod ingest;
mod lock;
mod pace;
mod phones;
mod quarantine;
mod rebuild;
mod request;
mod run;
mod segments;
mod topics;
mod wanted;
mod watch;
mod whom;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::sync::{Mutex, RwLock};

pub use self::{
    backfill::Backfilled,
    doctor::Finding,
    erase::Erased,
    error::OpsError,
    export::Held,
    ingest::Ingested,
    lock::{DirLock, Taken, socket},
    quarantine::{Listed, Retried, SetAside, WithPayload},
    request::{Line, Reply, Request},
    run::{BusinessTime, Ran},
};
use self::{backfill::Backfills, pace::Pace};
use crate::{
    activate::{Activator, Rooms},
    base::{Micros, Offset, Progress, Pseudonymizer, fx::CurrentRates, progress::Silent, time::DAY},
    config::{self, Settings},
    engine::{Engine, Limits, Session},
    facts::Decoder,
    lake::Lake,
    load::{self, FoldIn, Folder, Loaded, Loader, PhoneBook, Place, Wanted, fold_in},
    log::EventLog,
    pipeline::{self, Project, Runner},
    store::{self, Store, Vault},
    telemetry,
};

/// Between two looks how far the loader has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// In `runs`: when every change was last folded in.
const FOLDED_IN: &[u8] = b"\0folded_in";

/// See the module.
pub struct Instance {
    dir: PathBuf,
    settings: Settings,
    privacy_key: [u8; 32],
    names: Pseudonymizer,
    log: EventLog,
    lake: Lake,
    project: Arc<Project>,
    runner: Runner,
    loader: Mutex<Loader>,
    place: Place,
    /// Where the log ended when it was opened.
    began_at: Offset,
    activator: Activator,
    runs: store::Keyspace,
    /// Of what follows commits.
    pace: Pace,
    /// Files and backfills that are being taken in.
    taking: AtomicUsize,
    backfills: Backfills,
    /// What `fx()` converts by.
    rates: CurrentRates,
    phone_book: PhoneBook,
    wanted: Wanted,
    vault: Vault,
    /// What was asked to be forgotten and is not yet.
    erasures: store::Keyspace,
    forgetting: Mutex<()>,
    /// Held for writing while events are redacted, whose files go.
    reading_raw: RwLock<()>,
    /// Of single objects the last that Stripe did not tell of.
    unanswered: std::sync::Mutex<Option<wanted::Unanswered>>,
    /// Held while faults are looked for.
    alerting: Mutex<()>,
    store: Store,
    /// Released last.
    _lock: DirLock,
}

impl Instance {
    /// Opens `dir`, whose lock is `lock`, and makes what is missing.
    pub async fn open(dir: &Path, settings: Settings, lock: DirLock) -> Result<Instance, OpsError> {
        let project = Arc::new(Project::load(settings.pipelines.dir.as_deref())?);
        let key_file = settings.privacy.key_file.clone().unwrap_or_else(|| dir.join("privacy.key"));
        if matches!(key_file.try_exists(), Ok(false))
            && ["log", "lake", "state"].iter().any(|part| dir.join(part).exists())
        {
            return Err(OpsError::Told(format!(
                "the privacy key {} is missing, and {} holds what was made with it: restore it from a backup (with another key \
                 nobody is recognised, and whoever was written to would be written to again)",
                key_file.display(),
                dir.display()
            )));
        }
        let privacy_key = store::privacy_key(&key_file)?;
        let names = Pseudonymizer::new(&privacy_key);
        let tmp = dir.join("tmp");
        // What a killed process left behind: spilled sorts, half-folded scratch tables.
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(OpsError::dir("clear", &tmp, e)),
            _ => {}
        }
        let store = Store::open(&dir.join("state"))?;
        let lake = Lake::open(&dir.join("lake")).await?;
        let log = EventLog::of(&settings.log, &dir.join("log"), &store, load::raw_end(&lake))?;
        let vault = Vault::new(&store, &privacy_key)?;
        let decoder = decoder(&names, &settings.people);
        let folder = Folder::open(&store, vault.clone(), decoder, &settings.merchant.id)?;
        let loader = Loader::open(log.clone(), lake.clone(), store.clone(), folder)?;
        let must_rebuild = loader.must_rebuild()?;
        let engine = Engine::new(crate::engine::Settings {
            threads: settings.engine.threads,
            memory: settings.engine.memory,
            ..crate::engine::Settings::new(tmp.join("spill"))
        })?;
        let rooms = Rooms {
            store: store.clone(),
            log: log.clone(),
            vault: vault.clone(),
            lake: lake.clone(),
            names: names.clone(),
        };
        let activator = Activator::open(rooms, &settings, project.clone(), Micros::now())?;
        let rates = CurrentRates::default();
        let runner = Runner::new(
            engine,
            lake.clone(),
            pipeline::Settings {
                zone: settings.merchant.timezone,
                names: names.clone(),
                default_region: settings.people.default_region.clone(),
                rates: rates.clone(),
                reporting_currency: settings.people.reporting_currency,
            },
        );
        let instance = Instance {
            dir: dir.to_owned(),
            runs: store.keyspace("runs")?,
            taking: AtomicUsize::new(0),
            backfills: Backfills::open(&store)?,
            rates,
            phone_book: PhoneBook::open(&store)?,
            wanted: Wanted::open(&store)?,
            vault,
            erasures: store.keyspace("erasures")?,
            forgetting: Mutex::new(()),
            reading_raw: RwLock::new(()),
            unanswered: std::sync::Mutex::default(),
            pace: Pace::default(),
            alerting: Mutex::new(()),
            settings,
            privacy_key,
            names,
            began_at: log.end(),
            log,
            lake,
            project,
            runner,
            place: loader.place(),
            loader: Mutex::new(loader),
            activator,
            store,
            _lock: lock,
        };
        if let Some(why) = must_rebuild {
            tracing::warn!("{why}: tables and state are made again from raw.events");
            instance.rebuild(&[], &Silent).await?;
        }
        instance.read_rates().await?;
        // Not before the identities of all that was ever held are known again.
        instance.log.follow()?;
        Ok(instance)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says that something is taken in, for as long as what this gives lives.
    fn take_in(&self) -> TakingIn<'_> {
        self.taking.fetch_add(1, Ordering::AcqRel);
        TakingIn(&self.taking)
    }

    fn decoder(&self) -> Decoder {
        decoder(&self.names, &self.settings.people)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// What only another start can mend, and what to see to before it: a sync failed, or state could not be written.
    pub fn fault(&self) -> Option<OpsError> {
        self.log.broken().map(OpsError::from).or_else(|| self.lake.broken().map(OpsError::from))
    }

    /// Returns when readers see all that the log held when it was opened: what was seen before a kill must not be gone after it.
    pub async fn caught_up(&self) {
        while self.place.now().next < self.began_at {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A reader of what is seen by now, from files and from memory, at business time `as_of`.
    pub fn session(&self, as_of: Micros) -> Result<Session, OpsError> {
        Ok(self.runner.session(&self.project, as_of, self.limits())?)
    }

    fn limits(&self) -> Limits {
        Limits { time: Some(self.settings.engine.time_limit), rows: None }
    }

    /// How many rows there are of what stands after FROM.
    async fn count(&self, from: &str) -> Result<u64, OpsError> {
        #[derive(Deserialize)]
        struct Count {
            n: u64,
        }
        let sql = format!("SELECT count(*) AS n FROM {from}");
        let rows: Vec<Count> = self.session(Micros::now())?.rows(&sql).await?;
        Ok(rows.iter().map(|r| r.n).sum())
    }

    /// Loads everything that is in the log by now, and tidies the tables after it.
    pub async fn load(&self, progress: &dyn Progress) -> Result<Loaded, OpsError> {
        // Whoever asks a question gets an answer from what is here, brokers or not.
        if let Err(error) = self.log.catch_up().await {
            tracing::warn!("the newest events may be missing: {error}");
        }
        Ok(self.loader.lock().await.drain(progress).await?)
    }

    /// Loads what is there, for whoever calls often: it is seen at once, and committed by and by.
    pub async fn load_available(&self) -> Result<(), OpsError> {
        let mut loader = self.loader.lock().await;
        // What comes meanwhile gathers: run after run of a few events each costs more than it shows sooner.
        let end = self.log.end();
        while loader.follow().await?.is_some() && loader.next() < end {}
        Ok(())
    }

    /// Loads what is there and commits all of it.
    pub async fn load_and_commit(&self) -> Result<(), OpsError> {
        let mut loader = self.loader.lock().await;
        while loader.step().await?.is_some() {}
        Ok(())
    }

    /// Folds changes in, merges small files, writes checkpoints, deletes what no reader needs: all of it beside whatever is
    /// loaded and read. Once a day every change is folded in, otherwise where many have gathered.
    pub async fn upkeep(&self) -> Result<(), OpsError> {
        let now = Micros::now();
        let last = self.runs.get(FOLDED_IN)?.and_then(|at| Some(i64::from_be_bytes(at.as_ref().try_into().ok()?)));
        let nightly = last.is_none_or(|last| now.0 - last >= DAY);
        let which = if nightly { FoldIn::All } else { FoldIn::Worthwhile };
        let folded = fold_in(&self.lake, which).await;
        let maintained = self.lake.maintain().await;
        self.lake.publish();
        load::note_versions(&self.lake, &self.store)?;
        folded?;
        if nightly {
            let mut batch = self.store.batch();
            batch.put(&self.runs, FOLDED_IN, now.0.to_be_bytes());
            batch.commit()?;
            let wanted = self.wanted.clone();
            load::blocking(move || wanted.strike_met()).await?;
        }
        let done = maintained?;
        telemetry::upkept(done.files_merged as u64, done.files_deleted as u64, done.bytes_written);
        Ok(())
    }
}

fn decoder(names: &Pseudonymizer, people: &config::People) -> Decoder {
    Decoder::new(names.clone(), people.default_region.clone(), people.shared_addresses.clone())
}

/// See [`Instance::take_in`].
struct TakingIn<'a>(&'a AtomicUsize);

impl Drop for TakingIn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

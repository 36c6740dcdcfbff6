//! Exchange rates: fetched once a day, kept as events, and held in memory for `fx()`.

use std::{fs, path::Path, time::UNIX_EPOCH};

use serde::Deserialize;

use super::{Ingested, Instance, OpsError};
use crate::{
    base::{
        Currency, Micros, Source,
        fx::{Rate, Rates},
        time::DAY,
    },
    facts::Table,
    lake::changes_of,
    net::{Client, Options, Outcome, Request},
    sources::rates::{self, RatesError},
    telemetry,
};

/// Of a file, bytes: far above a line for each day and currency there ever was.
const LONGEST: u64 = 32 << 20;

/// In `runs`: when rates were read last.
const READ: &[u8] = b"\0fx";

#[derive(Deserialize)]
struct Row {
    /// Days since 1970-01-01.
    day: i32,
    base: Currency,
    currency: Currency,
    rate: f64,
}

impl Instance {
    /// Reads rates anew where a day has passed since, or their file was written since, and takes in what is new. Nothing, where
    /// no place for them is set.
    pub async fn refresh_rates(&self) -> Result<(), OpsError> {
        let fx = &self.settings.fx;
        let last = self.runs.get(READ)?.and_then(|at| Some(i64::from_be_bytes(at.as_ref().try_into().ok()?)));
        let now = Micros::now();
        let is_due = last.is_none_or(|last| now.0 - last >= DAY);
        let written = fx.file.as_ref().is_some_and(|file| last.is_some_and(|last| is_newer(file, last)));
        if !fx.is_set() || !(is_due || written) {
            return Ok(());
        }
        let published = match &fx.url {
            Some(url) => published(&url.to_string()).await,
            None => Ok(Vec::new()),
        };
        let filed = fx.file.as_deref().map_or(Ok(Vec::new()), filed);
        let settled = if fx.stripe { self.settled(now).await } else { Ok(Vec::new()) };
        // A place that fails keeps nothing back of the other.
        let mut failed = None;
        for (origin, told) in [("ecb", published), ("file", filed), ("stripe", settled)] {
            match told {
                Ok(told) => {
                    let events = rates::events(&told, origin, now).map_err(unreadable(origin))?;
                    self.take(Source::Tillstream, events, &mut Ingested::default()).await?;
                    self.hold(told);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut batch = self.store.batch();
        batch.put(&self.runs, READ, now.0.to_be_bytes());
        batch.commit()?;
        let age = self.rates_age(now);
        telemetry::fx_age(age);
        if age.is_none_or(|days| days > i64::from(fx.max_age_days)) {
            tracing::error!("exchange rates are stale: {}", self.rates_shown(now));
        }
        Ok(())
    }

    /// At what Stripe converted the payments of whole days, all that there are: history may have come since.
    async fn settled(&self, now: Micros) -> Result<Vec<Rate>, OpsError> {
        let sql = "SELECT CAST(day AS INT) AS day, base, currency, rate FROM core.settled_rates WHERE day < CAST(as_of() AS DATE)";
        let rows: Vec<Row> = self.session(now)?.rows(sql).await?;
        // The order in which floats are added must not make another rate of them.
        let rates = rows.iter().filter_map(Row::rate).map(Rate::rounded);
        Ok(rates.filter(|rate| rate.fault().is_none()).collect())
    }

    /// What the tables hold: before the first question.
    pub(super) async fn read_rates(&self) -> Result<(), OpsError> {
        let (snapshot, table) = (self.lake.snapshot(), Table::FxRates.name());
        self.rates.set(Rates::new(self.settings.fx.max_age_days));
        if snapshot.rows(table).is_none() && snapshot.rows(&changes_of(table)).is_none() {
            return Ok(());
        }
        let sql = "SELECT CAST(day AS INT) AS day, base, currency, rate FROM ref.fx_rates ORDER BY fetched_at, rate_id";
        let rows: Vec<Row> = self.session(Micros::now())?.rows(sql).await?;
        self.hold(rows.iter().filter_map(Row::rate));
        Ok(())
    }

    fn hold(&self, told: impl IntoIterator<Item = Rate>) {
        let mut rates = Rates::clone(&self.rates.get());
        for rate in told {
            if !rates.insert(&rate) {
                tracing::warn!("no rate: {} {} a {} on {}", rate.rate, rate.currency, rate.base, rate.day);
            }
        }
        self.rates.set(rates);
    }

    /// In days, of the newest rate.
    fn rates_age(&self, now: Micros) -> Option<i64> {
        Some(now.date()?.signed_duration_since(self.rates.get().newest()?).num_days())
    }

    /// What `doctor` says of them; `None` where no place for them is set.
    pub(super) fn rates_finding(&self) -> Option<super::Finding> {
        let fx = &self.settings.fx;
        let now = Micros::now();
        let ok = self.rates_age(now).is_some_and(|days| days <= i64::from(fx.max_age_days));
        let remedy =
            "see [fx] url, file and stripe: `tillstream run` and serve read them once a day, and say what is wrong";
        fx.is_set().then(|| super::Finding::new("exchange rates", ok, self.rates_shown(now), remedy))
    }

    fn rates_shown(&self, now: Micros) -> String {
        match (self.rates.get().newest(), self.rates_age(now)) {
            (Some(day), Some(age)) => format!("the newest are of {day}, {age} days ago"),
            _ => "there are none yet".to_owned(),
        }
    }
}

impl Row {
    fn rate(&self) -> Option<Rate> {
        let day = chrono::NaiveDate::from_epoch_days(self.day)?;
        Some(Rate { day, base: self.base, currency: self.currency, rate: self.rate })
    }
}

async fn published(url: &str) -> Result<Vec<Rate>, OpsError> {
    rates::from_ecb(&fetch(url).await?).map_err(unreadable(url))
}

fn filed(file: &Path) -> Result<Vec<Rate>, OpsError> {
    rates::from_csv(&read(file)?).map_err(unreadable(&file.display().to_string()))
}

/// Whether the file was written after `last`, microseconds.
fn is_newer(file: &Path, last: i64) -> bool {
    let written = fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let since = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.is_some_and(|since| i64::try_from(since.as_micros()).is_ok_and(|at| at > last))
}

/// A file, not a pipe or a device, which may have no end.
fn read(file: &Path) -> Result<Vec<u8>, OpsError> {
    let about = fs::metadata(file).map_err(|e| OpsError::dir("read", file, e))?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(OpsError::Told(format!(
            "{}: a file of exchange rates of at most {} MiB is wanted",
            file.display(),
            LONGEST >> 20
        )));
    }
    fs::read(file).map_err(|e| OpsError::dir("read", file, e))
}

async fn fetch(url: &str) -> Result<bytes::Bytes, OpsError> {
    let failed = |why: String| OpsError::Told(format!("exchange rates could not be fetched from {url}: {why}"));
    let client = Client::new(Options::default()).map_err(|e| failed(e.to_string()))?;
    match client.send(&Request::get(url)).await.map_err(|e| failed(e.to_string()))? {
        Outcome::Sent(answer) if answer.is_success() => Ok(answer.body),
        Outcome::Sent(answer) => Err(failed(format!("the answer is {}", answer.status))),
        Outcome::Refused { why, .. } | Outcome::Unknown { why, .. } => Err(failed(why)),
    }
}

fn unreadable(place: &str) -> impl Fn(RatesError) -> OpsError {
    move |error| OpsError::Told(format!("exchange rates of {place} cannot be read: {error}"))
}

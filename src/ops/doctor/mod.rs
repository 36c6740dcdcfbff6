//! What is wrong with a directory and its surroundings, and what to do about each fault. It changes nothing.

mod activation;
mod tables;

use std::{fs, sync::PoisonError, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Instance, OpsError};
use crate::{
    base::{Micros, Source},
    config::{EmailChannel, SmsChannel},
    load,
    net::{self, Outcome},
    sources::api::Api,
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub subject: String,
    pub ok: bool,
    pub found: String,
    /// What to do; empty where all is well.
    pub remedy: String,
}

/// Less free space than this, and the log will soon refuse events.
const ROOM: u64 = 1 << 30;
/// A provider that does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(5);
/// Behind by more than this, the tables are not what people expect of them.
const BACKLOG: u64 = 100_000;
/// A sync that takes this long on average holds every webhook up as long.
const SLOW_SYNC_MS: f64 = 100.0;
/// More that waits to be asked for is not counted.
const MANY: usize = 1000;
/// Before this the clock is surely wrong: 2025-01-01.
const EARLIEST: Micros = Micros(1_735_689_600_000_000);

impl Instance {
    pub async fn doctor(&self) -> Vec<Finding> {
        let mut findings = self.own_findings().await;
        findings.extend([self.files().await, self.set_aside_finding().await, self.stripe(), self.receivers()]);
        findings.extend(self.wanted_finding().await);
        findings.extend([self.held_segments().await, self.messages()]);
        findings.extend(self.apis().await);
        findings.extend(self.providers().await);
        findings.push(self.pipelines().await);
        findings
    }

    /// What costs little to look at, every minute: this process, its disk, the log and the tables' lists of files, and the last run
    /// of each pipeline. Nobody else is asked.
    pub(super) async fn own_findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.disk(), self.permissions(), clock(), self.log_finding(), self.backlog()];
        findings.push(self.tables_finding());
        findings.extend(self.rates_finding());
        findings.push(self.runs().await);
        findings
    }

    fn disk(&self) -> Finding {
        let remedy = "make room, or move the data directory to a larger disk";
        match free_bytes(&self.dir) {
            Ok(free) => {
                let found = format!("{:.1} GB free at {}", free as f64 / 1e9, self.dir.display());
                Finding::new("disk", free >= ROOM, found, remedy)
            }
            Err(error) => Finding::new("disk", false, error.to_string(), remedy),
        }
    }

    fn permissions(&self) -> Finding {
        use std::os::unix::fs::PermissionsExt;
        let key = self.settings.privacy.key_file.clone().unwrap_or_else(|| self.dir.join("privacy.key"));
        let remedy = format!("chmod 600 {}", key.display());
        match fs::metadata(&key) {
            Ok(meta) => {
                let mode = meta.permissions().mode() & 0o777;
                Finding::new("privacy key", mode & 0o077 == 0, format!("{} has mode {mode:o}", key.display()), &remedy)
            }
            Err(error) => Finding::new("privacy key", false, format!("{}: {error}", key.display()), &remedy),
        }
    }

    fn log_finding(&self) -> Finding {
        if let Some(why) = self.log.stopped() {
            let brokers = self.log.is_shared() && why.is_retryable();
            let remedy =
                if brokers { "see [log] brokers, and that they are up" } else { "see the disk, then start again" };
            return Finding::new("log", false, why.to_string(), remedy);
        }
        let (stats, size) = (self.log.stats(), self.log.size());
        let sync_ms = stats.sync_micros as f64 / 1000.0 / stats.syncs.max(1) as f64;
        let found = format!(
            "{} events and {} duplicates since the start, {sync_ms:.1} ms a sync; {:.1} MB kept, {} bytes wait",
            stats.events,
            stats.duplicates,
            size.kept_bytes as f64 / 1e6,
            size.queued_bytes
        );
        Finding::new(
            "log",
            sync_ms <= SLOW_SYNC_MS,
            found,
            "its disk is slow or busy: move the data directory to another",
        )
    }

    fn backlog(&self) -> Finding {
        let (behind, uncommitted) = self.lag();
        let found = format!("{behind} events in the log wait to be loaded, {uncommitted} to be committed");
        Finding::new(
            "backlog",
            behind <= BACKLOG,
            found,
            "stop serve and run `tillstream sql \"SELECT 1\"`, which loads them and says what hinders it",
        )
    }

    async fn set_aside_finding(&self) -> Finding {
        let found = match self.set_aside_open().await {
            Ok(0) => "nothing is set aside".to_owned(),
            Ok(n) => {
                format!("{n} were set aside: tillstream quarantine list says why, retry takes in what is good now")
            }
            Err(error) => return Finding::new("quarantine", false, error.to_string(), "tillstream rebuild"),
        };
        // No fault of ours, and nothing is lost: whoever sent it may want to know.
        Finding::new("quarantine", true, found, "")
    }

    /// Whose webhooks are accepted.
    fn stripe(&self) -> Finding {
        let found = match self.settings.stripe.webhook_secrets.len() {
            0 => "no webhook secret is set, so no webhook of Stripe's is accepted; files are".to_owned(),
            n => format!("{n} webhook secrets"),
        };
        Finding::new("stripe", true, found, "")
    }

    /// The same of all others who may post.
    fn receivers(&self) -> Finding {
        let settings = &self.settings;
        let all = [
            ("Klaviyo", settings.klaviyo.webhook_secret.is_some()),
            ("Twilio", settings.twilio.auth_token.is_some()),
            ("Aliyun", settings.aliyun.webhook_secret.is_some()),
            ("the shop's pages", !settings.storefront.write_keys.is_empty()),
        ];
        let named = |set: bool| {
            let names: Vec<&str> = all.iter().filter(|(_, is)| *is == set).map(|(name, _)| *name).collect();
            if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
        };
        let found = format!("accepted: {}; without a secret or key: {}", named(true), named(false));
        Finding::new("receivers", true, found, "")
    }

    /// The APIs that history comes from.
    async fn apis(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for source in [Source::Stripe, Source::Klaviyo] {
            let found = match tokio::time::timeout(PATIENCE, self.listened(source)).await {
                Ok(None) => continue,
                Ok(Some(Ok(Some(at)))) => Ok(format!("it answers; what happened before {at} was asked for")),
                Ok(Some(Ok(None))) => Ok(format!(
                    "it answers, and was never asked for events: serve does, and tillstream backfill {source} the past"
                )),
                Ok(Some(Err(error))) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {PATIENCE:?}")),
            };
            let ok = found.is_ok();
            let remedy = format!("see [{source}] api_key and api_base, the network, and a proxy");
            findings.push(Finding::new(&format!("{source} api"), ok, found.unwrap_or_else(|e| e), &remedy));
        }
        findings
    }

    /// What waits to be asked for: nothing is wrong with that, but someone should ask.
    async fn wanted_finding(&self) -> Option<Finding> {
        let asked = match self.backfills.api(Source::Stripe, &self.settings).await {
            Ok(Some(Api::Stripe(api))) => Some(api.is_live()),
            _ => None,
        };
        let wanted = self.wanted.clone();
        let counted =
            load::blocking(move || Ok([(true, wanted.count(true, MANY)?), (false, wanted.count(false, MANY)?)]));
        let counts = match counted.await {
            Ok(counts) => counts,
            Err(error) => return Some(Finding::fault("open objects", error.to_string(), "tillstream rebuild")),
        };
        let told = counts.into_iter().filter(|(_, n)| *n > 0).map(|(livemode, n)| {
            let (world, least) = (if livemode { "live" } else { "test" }, if n == MANY { "at least " } else { "" });
            let asks = if asked == Some(livemode) {
                "serve asks Stripe for them"
            } else {
                "[stripe] api_key of that mode would let serve ask for them"
            };
            format!("{least}{n} in {world} mode whose events leave open what they are by now, or are made of: {asks}")
        });
        let found = told.collect::<Vec<_>>().join("; ");
        let failure = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failure.filter(|_| !found.is_empty()) {
            Some((_, why)) => Some(Finding::fault("open objects", format!("{found}. {why}"), "see the log of serve")),
            None => (!found.is_empty()).then(|| Finding::new("open objects", true, found, "")),
        }
    }

    /// Providers that messages would go to.
    async fn providers(&self) -> Vec<Finding> {
        let mut wanted = Vec::new();
        if self.settings.activate.sms == SmsChannel::Twilio {
            wanted.push(("twilio", self.settings.twilio.api_base.join("/")));
        }
        if self.settings.activate.email == EmailChannel::Klaviyo {
            wanted.push(("klaviyo", self.settings.klaviyo.api_base.join("/")));
        }
        let retry = net::Retry { tries: 1, ..net::Retry::default() };
        let client = match net::Client::new(net::Options { timeout: PATIENCE, retry, ..net::Options::default() }) {
            Ok(client) => client,
            Err(error) => {
                return vec![Finding::new("network", false, error.to_string(), "see the system's certificates")];
            }
        };
        let mut findings = Vec::new();
        for (name, url) in wanted {
            // Any answer shows that the way is open; whether the key is right shows the first message.
            let reached = client.send(&net::Request::get(&url)).await;
            let ok = matches!(&reached, Ok(Outcome::Sent(_)));
            let found = if ok { format!("{url} answers") } else { format!("{url} does not answer: {reached:?}") };
            findings.push(Finding::new(name, ok, found, "see the network, a proxy, and api_base in the settings"));
        }
        findings
    }

    async fn pipelines(&self) -> Finding {
        let faults = self.check().await;
        let found = match faults.len() {
            0 => format!("{} pipelines are in order", self.project.pipelines().len()),
            n => format!("{n} faults, the first: {}", faults[0]),
        };
        Finding::new("pipelines", faults.is_empty(), found, "tillstream check names each with file and line")
    }

    /// What failed in the last run of each pipeline.
    async fn runs(&self) -> Finding {
        #[derive(Deserialize)]
        struct Failed {
            pipeline: String,
            what: String,
            why: String,
        }
        const SQL: &str = "\
            WITH last AS (
                SELECT pipeline, first_value(run_id ORDER BY started_at DESC) AS run_id
                FROM ops.pipeline_runs GROUP BY pipeline
            )
            SELECT pipeline, model AS what, coalesce(error, status) AS why
            FROM ops.pipeline_runs JOIN last USING (pipeline, run_id) WHERE status = 'failed'
            UNION ALL
            SELECT pipeline, check_name, coalesce(error, failures || ' rows')
            FROM ops.check_results JOIN last USING (pipeline, run_id) WHERE status = 'failed'
            ORDER BY 1, 2";
        let remedy = "mend its SQL, or what it says of the data, then tillstream run";
        let failed: Result<Vec<Failed>, OpsError> = async { Ok(self.session(Micros::now())?.rows(SQL).await?) }.await;
        let known = |f: &Failed| self.project.pipelines().iter().any(|p| p.name == f.pipeline);
        match failed.map(|all| all.into_iter().filter(known).collect::<Vec<_>>()) {
            Err(error) => Finding::fault("runs", error.to_string(), "tillstream rebuild"),
            Ok(failed) => match failed.first() {
                None => Finding::new("runs", true, "nothing failed in the last run of any pipeline".to_owned(), ""),
                Some(Failed { pipeline, what, why }) => {
                    let found = format!("{} failed last time, the first: {what} of {pipeline}: {why}", failed.len());
                    Finding::fault("runs", found, remedy)
                }
            },
        }
    }
}

impl Finding {
    pub fn fault(subject: &str, found: String, remedy: &str) -> Finding {
        Finding::new(subject, false, found, remedy)
    }

    pub(super) fn new(subject: &str, ok: bool, found: String, remedy: &str) -> Finding {
        let remedy = if ok { String::new() } else { remedy.to_owned() };
        Finding { subject: subject.to_owned(), ok, found, remedy }
    }
}

fn clock() -> Finding {
    let now = Micros::now();
    let found = format!("the clock says {now}");
    Finding::new("clock", now >= EARLIEST, found, "set it (NTP): signatures and quiet hours depend on it")
}

fn free_bytes(dir: &std::path::Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

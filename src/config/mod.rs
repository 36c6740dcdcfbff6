//! Settings: `tillstream.toml`, then the environment, checked and typed once.
//!
//! A `Settings` that exists is valid as a whole: no other module parses or doubts an option. Every option stands once,
//! in [`options::OPTIONS`], with its meaning; what is not in that table does not exist, and naming it is an error that
//! says where. Secrets are [`Secret`]s: they are never shown, neither by an error nor by `describe`.

mod base_url;
mod given;
mod kafka;
mod options;
mod read;
mod secret;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;

pub use base_url::BaseUrl;
pub use kafka::{Cluster, Kafka, Topic};
pub use options::Described;
use read::Origins;
pub use secret::Secret;

use crate::base::{Currency, SharedAddresses};

/// Read where no `--config` names another file; it may be absent.
pub const DEFAULT_FILE: &str = "tillstream.toml";

/// Environment variables with this prefix are options: `TILLSTREAM__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "TILLSTREAM__";

/// All options. See [`options::OPTIONS`] for what each means.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub merchant: Merchant,
    pub privacy: Privacy,
    pub server: Server,
    pub stripe: Stripe,
    pub klaviyo: Klaviyo,
    pub twilio: Twilio,
    pub aliyun: Aliyun,
    pub storefront: Storefront,
    pub log: Log,
    pub kafka: Kafka,
    pub engine: Engine,
    pub pipelines: Pipelines,
    pub activate: Activate,
    pub people: People,
    pub fx: Fx,
    origins: Origins,
}

impl Settings {
    /// From `file`, else from `tillstream.toml` where there is one, then from the environment.
    pub fn load(file: Option<&Path>) -> Result<Settings, ConfigError> {
        Settings::load_with(file, std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))))
    }

    /// Like [`Settings::load`], with these variables as the environment.
    pub fn load_with<V: Into<std::ffi::OsString>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, V)>,
    ) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        match file {
            Some(path) => read::file(&mut settings, path)?,
            None if Path::new(DEFAULT_FILE).exists() => read::file(&mut settings, Path::new(DEFAULT_FILE))?,
            None => {}
        }
        read::environment(&mut settings, environment)?;
        settings.check()?;
        Ok(settings)
    }

    /// Every option with its value, where that came from, and what it means. Secrets are `set` or `not set`.
    pub fn describe(&self) -> Vec<Described> {
        options::describe(self)
    }

    /// What no option alone can show: a channel without the credentials it needs.
    fn check(&self) -> Result<(), ConfigError> {
        let twilio = &self.twilio;
        let lacking = |option: &'static str, wanted: &str| ConfigError::Bad {
            at: self.origins.place(option),
            option: option.to_owned(),
            why: format!("it needs {wanted}"),
        };
        if self.activate.sms == SmsChannel::Twilio {
            if twilio.account_sid.is_none() || twilio.auth_token.is_none() {
                return Err(lacking("activate.sms", "[twilio] account_sid and auth_token"));
            }
            if twilio.messaging_service_sid.is_none() && twilio.from.is_none() {
                return Err(lacking("activate.sms", "[twilio] messaging_service_sid, or from"));
            }
        }
        for (option, wanted, cluster) in [
            ("log.kind", self.log.kind == LogKind::Kafka, &self.log.cluster),
            ("kafka.topics", !self.kafka.topics.is_empty(), &self.kafka.cluster),
        ] {
            if wanted && !cfg!(feature = "kafka") {
                return Err(lacking(option, "a build with Kafka in it: cargo build --release --features kafka"));
            }
            if wanted && cluster.brokers.is_empty() {
                let section = option.split('.').next().unwrap_or_default();
                return Err(lacking(option, &format!("[{section}] brokers")));
            }
        }
        if self.activate.email == EmailChannel::Klaviyo && self.klaviyo.api_key.is_none() {
            return Err(lacking("activate.email", "[klaviyo] api_key"));
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct Merchant {
    pub id: String,
    pub timezone: Tz,
}

impl Default for Merchant {
    fn default() -> Self {
        Merchant { id: "default".to_owned(), timezone: Tz::UTC }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Privacy {
    /// `None`: `privacy.key` in the data directory.
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub listen: SocketAddr,
    /// `None`: as the request's own Host header says.
    pub public_url: Option<BaseUrl>,
    /// Connections that are held at once.
    pub connections: usize,
    /// Open what a checkout asks, and nothing else.
    pub checkout_tokens: Vec<Secret>,
    /// Questions of checkouts, a second.
    pub checkout_rate: u32,
}

impl Default for Server {
    fn default() -> Self {
        // Each is an open file, and `serve` raises its limit of those to the highest that the system allows: far above
        // this. Who knocks while all are taken waits, so it is better too high than too low.
        Server {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8700)),
            public_url: None,
            connections: 16_384,
            checkout_tokens: Vec::new(),
            // Some thousand buyers a minute.
            checkout_rate: 50,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Stripe {
    /// One an endpoint, and two while one is rolled.
    pub webhook_secrets: Vec<Secret>,
    /// Seconds between a signature's time and ours, either way; never 0, which SDKs read as "do not check".
    pub tolerance_seconds: u32,
    pub api_key: Option<Secret>,
    pub api_base: BaseUrl,
}

impl Default for Stripe {
    fn default() -> Self {
        // Stripe's own libraries take 300 s.
        let tolerance_seconds = 300;
        Stripe { webhook_secrets: Vec::new(), tolerance_seconds, api_key: None, api_base: BaseUrl::STRIPE }
    }
}

#[derive(Debug, Clone)]
pub struct Klaviyo {
    pub api_key: Option<Secret>,
    pub webhook_secret: Option<Secret>,
    pub api_base: BaseUrl,
}

impl Default for Klaviyo {
    fn default() -> Self {
        Klaviyo { api_key: None, webhook_secret: None, api_base: BaseUrl::KLAVIYO }
    }
}

#[derive(Debug, Clone)]
pub struct Twilio {
    pub account_sid: Option<String>,
    pub auth_token: Option<Secret>,
    pub messaging_service_sid: Option<String>,
    /// A number in E.164, a short code or an alphanumeric sender.
    pub from: Option<String>,
    pub api_base: BaseUrl,
}

impl Default for Twilio {
    fn default() -> Self {
        let api_base = BaseUrl::TWILIO;
        Twilio { account_sid: None, auth_token: None, messaging_service_sid: None, from: None, api_base }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Aliyun {
    /// The last part of the address at which reports are taken. `None`: none are.
    pub webhook_secret: Option<Secret>,
    /// From where reports may come; empty: from anywhere.
    pub webhook_ips: Vec<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub struct Storefront {
    /// One a site or app.
    pub write_keys: Vec<Secret>,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub kind: LogKind,
    pub cluster: Cluster,
    pub topic: String,
    pub segment_mib: u32,
}

impl Default for Log {
    fn default() -> Self {
        let (kind, topic) = (LogKind::Embedded, "tillstream.events".to_owned());
        Log { kind, cluster: Cluster::default(), topic, segment_mib: 64 }
    }
}

/// What makes an event durable before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogKind {
    /// The data directory's own disk.
    #[default]
    Embedded,
    /// The brokers of `[log] brokers`, whose topic each data directory follows.
    Kafka,
}

#[derive(Debug, Clone)]
pub struct Engine {
    /// Bytes.
    pub memory: usize,
    pub threads: usize,
    pub time_limit: Duration,
}

impl Default for Engine {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Engine { memory: 1 << 30, threads, time_limit: Duration::from_secs(300) }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Pipelines {
    /// `None`: those that Tillstream ships.
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub struct Activate {
    pub send: bool,
    pub sms: SmsChannel,
    pub email: EmailChannel,
}

/// Where text messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SmsChannel {
    /// Recorded, not sent.
    #[default]
    Outbox,
    Twilio,
}

/// Where e-mails go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmailChannel {
    /// Recorded, not sent.
    #[default]
    Outbox,
    Klaviyo,
}

#[derive(Debug, Clone, Default)]
pub struct People {
    /// Two letters, in upper case: how a phone number without a country code is read.
    pub default_region: Option<String>,
    pub shared_addresses: SharedAddresses,
    /// In which amounts of several currencies are reported.
    pub reporting_currency: Option<Currency>,
}

/// Where exchange rates come from. Nowhere, where neither is set.
#[derive(Debug, Clone)]
pub struct Fx {
    /// Of a document in the ECB's layout.
    pub url: Option<BaseUrl>,
    /// A CSV file of `day,base,currency,rate`.
    pub file: Option<PathBuf>,
    /// Those at which Stripe converted the shop's own payments.
    pub stripe: bool,
    /// For how long a rate may be used when there is no newer one.
    pub max_age_days: u32,
}

impl Fx {
    pub fn is_set(&self) -> bool {
        self.url.is_some() || self.file.is_some() || self.stripe
    }
}

impl Default for Fx {
    fn default() -> Self {
        // Easter is four days without rates.
        Fx { url: None, file: None, stripe: false, max_age_days: 7 }
    }
}

/// Why there are no settings. None of these shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{at}: {message}")]
    Syntax { at: String, message: String },
    #[error("{at}: unknown section [{section}]{hint}")]
    UnknownSection { at: String, section: String, hint: String },
    #[error("{at}: unknown option {option}{hint}")]
    UnknownOption { at: String, option: String, hint: String },
    #[error("{at}: {option}: {why}")]
    Bad { at: String, option: String, why: String },
}

#[cfg(test)]
mod tests;

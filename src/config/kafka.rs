//! What is said of Kafka: where its brokers are, and which of the merchant's own topics are read.

use std::fmt;

use super::Secret;
use crate::base::Source;

/// How a cluster is reached.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// `host:port`; one that answers names the others.
    pub brokers: Vec<String>,
    /// Settings of librdkafka by name, such as security demands.
    pub properties: Vec<(String, Secret)>,
}

impl Cluster {
    /// As librdkafka wants it: the certificates that the system trusts, unless others are named. What a client relies on it sets
    /// after these.
    pub fn client(&self) -> impl Iterator<Item = (&str, String)> {
        let given = self.properties.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned()));
        let trusted = std::iter::once(("ssl.ca.location", "probe".to_owned()));
        trusted
            .chain(given)
            .chain([("bootstrap.servers", self.brokers.join(",")), ("client.id", "tillstream".to_owned())])
    }
}

/// Topics of the merchant's own that events are read from.
#[derive(Debug, Clone)]
pub struct Kafka {
    pub cluster: Cluster,
    pub topics: Vec<Topic>,
    pub group: String,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka { cluster: Cluster::default(), topics: Vec::new(), group: "tillstream".to_owned() }
    }
}

/// A topic, and whose events its records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub source: Source,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.source)
    }
}

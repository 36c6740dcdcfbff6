//! The log's topic: made with settings that lose nothing, or found and looked at.

use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaResult, RDKafkaErrorCode},
};

use super::{PATIENCE, sender::LARGEST};

/// Spreads evenly over 1, 2, 3, 4 and 6 brokers. Only load hangs on it: order is needed within one key.
const PARTITIONS: i32 = 12;
/// Copies of each record, where there are as many brokers.
const COPIES: i32 = 3;

/// How many partitions the topic has; `None` where there is none of that name.
pub(super) fn partitions(asker: &BaseConsumer, topic: &str) -> KafkaResult<Option<i32>> {
    let metadata = asker.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    Ok(found.map(|t| t.partitions().len() as i32).filter(|n| *n > 0))
}

/// Sees to it that there is the topic, with settings that keep what was acknowledged; how many partitions it has.
pub(super) fn ensure(client: &ClientConfig, asker: &BaseConsumer, topic: &str) -> Result<i32, String> {
    let partitions_now = || partitions(asker, topic).map_err(|e| e.to_string());
    if let Some(partitions) = partitions_now()? {
        check(client, topic)?;
        return Ok(partitions);
    }
    let brokers = asker.fetch_metadata(Some(topic), PATIENCE).map_err(|e| e.to_string())?.brokers().len();
    make(client, topic, brokers)?;
    // The brokers need a moment to tell one another.
    for _ in 0..50 {
        if let Some(partitions) = partitions_now()? {
            return Ok(partitions);
        }
        std::thread::sleep(PATIENCE / 50);
    }
    Err(format!("topic {topic} was made, and is not seen yet"))
}

fn make(client: &ClientConfig, topic: &str, brokers: usize) -> Result<(), String> {
    let copies = COPIES.min(brokers as i32).max(1);
    if copies < 2 {
        tracing::warn!("topic {topic}: with one broker its disk has the only copy of what was not loaded yet");
    }
    // With three copies one broker may be down; with two none may, or an acknowledged record could have one copy.
    let in_sync = if copies > 1 { "2" } else { "1" };
    let largest = (LARGEST + 1024).to_string();
    let settings = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(copies))
        .set("cleanup.policy", "delete")
        // Who follows, and how far they are, the brokers do not know: nothing goes before somebody decides so.
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("min.insync.replicas", in_sync)
        .set("unclean.leader.election.enable", "false")
        .set("max.message.bytes", &largest);
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|e| e.to_string())?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let made = block_on(admin.create_topics([&settings], &options)).map_err(|e| e.to_string())?;
    match made.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            Err(format!("topic {topic} could not be made ({code}): make it, or allow it"))
        }
        _ => Ok(()),
    }
}

/// Of a topic that somebody else made. Compaction would delete events; what else is weak is the operator's to know.
fn check(client: &ClientConfig, topic: &str) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|e| e.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
    let Some(Ok(settings)) = described.ok().and_then(|d| d.into_iter().next()) else {
        tracing::info!("the settings of topic {topic} cannot be looked at");
        return Ok(());
    };
    let is = |name: &str, bad: fn(&str) -> bool| value(&settings, name).is_some_and(bad);
    if is("cleanup.policy", |v| v.contains("compact")) {
        return Err(format!("topic {topic} is compacted, which deletes events: set cleanup.policy=delete"));
    }
    type IsWeak = fn(&str) -> bool;
    let weak: [(&str, IsWeak, &str); 4] = [
        ("unclean.leader.election.enable", |v| v == "true", "a failing broker may lose acknowledged events"),
        ("min.insync.replicas", |v| v == "1", "one broker's disk may have the only copy of an acknowledged event"),
        ("retention.ms", |v| v != "-1", "what nobody has read by then is lost"),
        ("retention.bytes", |v| v != "-1", "what nobody has read by then is lost"),
    ];
    for (name, bad, why) in weak {
        if is(name, bad) {
            let set = value(&settings, name).unwrap_or_default();
            tracing::warn!("topic {topic} has {name}={set}: {why}");
        }
    }
    Ok(())
}

fn value<'a>(settings: &'a ConfigResource, name: &str) -> Option<&'a str> {
    settings.get(name)?.value.as_deref()
}

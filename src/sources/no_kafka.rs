//! What stands for the merchant's topics in a build without Kafka: nobody can read them, and settings that name some are
//! refused.

use crate::{base::Envelope, config};

#[derive(Debug, thiserror::Error)]
#[error("this build has no Kafka in it: build it with --features kafka")]
pub struct TopicsError;

pub enum Topics {}

pub struct Records {
    pub envelopes: Vec<Envelope>,
}

impl Topics {
    pub fn join(_: &config::Kafka) -> Result<Topics, TopicsError> {
        Err(TopicsError)
    }

    pub async fn next(&self) -> Result<Records, TopicsError> {
        match *self {}
    }

    pub async fn commit(&self, _: Records) -> Result<(), TopicsError> {
        match *self {}
    }
}

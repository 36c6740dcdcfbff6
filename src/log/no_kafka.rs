//! What stands for the brokers in a build without them: there can be none, and settings that want them are refused.

use std::sync::Arc;

use super::{
    Appended,
    embedded::Embedded,
    error::{AppendError, LogError},
};
use crate::{base::Envelope, config::Log, store::Store};

pub(super) enum Brokers {}

impl Brokers {
    pub fn join(_: &Log, _: &Store, _: Arc<Embedded>) -> Result<Brokers, LogError> {
        Err(LogError::Brokers("this build has no Kafka in it: build it with --features kafka".to_owned()))
    }

    pub fn follow(&self) -> Result<(), LogError> {
        match *self {}
    }

    pub async fn append(&self, _: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        match *self {}
    }

    pub async fn offer(&self, _: &[Envelope]) -> Result<Vec<Appended>, AppendError> {
        match *self {}
    }

    pub async fn catch_up(&self) -> Result<(), AppendError> {
        match *self {}
    }

    pub fn stopped(&self) -> Option<AppendError> {
        match *self {}
    }
}

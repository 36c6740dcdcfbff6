//! To whoever owns the directory: this process, once it has the lock, or a running `serve`, over its socket.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use bytes::{Buf, BytesMut};

use super::{Context, Usage};
use crate::{
    net::{Answer, LocalClient, LocalError, Upload},
    ops::{DirLock, Instance, Line, OpsError, Reply, Request, Taken, socket},
};

pub enum Reached {
    Here(Arc<Instance>),
    There(LocalClient),
}

/// Takes the directory, or finds the process that has it. A directory that is not there is a slip of the pen.
pub async fn reach(context: &Context) -> anyhow::Result<Reached> {
    if !context.data.try_exists().with_context(|| context.data.display().to_string())? {
        bail!(
            "there is no data directory {}: `tillstream ingest`, `serve` and `demo` make one; name another with --data",
            context.data.display()
        );
    }
    let reached = reach_or_make(context).await?;
    if let Reached::Here(instance) = &reached {
        instance.resume_erasures().await;
    }
    Ok(reached)
}

/// The same for commands that begin a directory.
pub async fn reach_or_make(context: &Context) -> anyhow::Result<Reached> {
    match DirLock::take(&context.data)? {
        Taken::Ours(lock) => {
            Ok(Reached::Here(Arc::new(Instance::open(&context.data, context.settings.clone(), lock).await?)))
        }
        Taken::Theirs(process) => {
            let client = LocalClient::new(&socket(&context.data))?;
            match client.get("/local/ping", &[]).await {
                Ok(_) => Ok(Reached::There(client)),
                Err(LocalError::NotRunning(_)) => bail!(OpsError::InUse { dir: context.data.clone(), process }),
                Err(error) => Err(error.into()),
            }
        }
    }
}

impl Reached {
    /// Performs a request wherever the owner is.
    pub async fn perform(&self, context: &Context, request: Request) -> anyhow::Result<Reply> {
        match self {
            Reached::Here(instance) => Ok(instance.perform(request, &*context.progress).await?),
            Reached::There(client) => {
                let request = match request {
                    Request::Ingest { source, files, mapping } => Request::Ingest {
                        source,
                        files: files.into_iter().map(absolute).collect::<Result<_, _>>()?,
                        mapping,
                    },
                    other => other,
                };
                let upload = Upload::Json(serde_json::to_value(&request)?);
                follow(client.post("/local/perform", &[], upload).await?, context).await
            }
        }
    }
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| path.display().to_string())
}

/// Shows the progress that the owner tells, until its reply.
pub async fn follow(mut answer: Answer, context: &Context) -> anyhow::Result<Reply> {
    if !answer.is_success() {
        let told = answer.bytes().await?;
        bail!("{}", String::from_utf8_lossy(&told).trim());
    }
    let mut waiting = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        waiting.extend_from_slice(&chunk);
        while let Some(end) = waiting.iter().position(|b| *b == b'\n') {
            let line = waiting.split_to(end);
            waiting.advance(1);
            match serde_json::from_slice(&line)? {
                Line::Begin { stage, total, unit } => context.progress.begin(&stage, total, &unit),
                Line::At { done } => context.progress.at(done),
                Line::End { summary } => context.progress.end(&summary),
                Line::Reply(reply) => return Ok(*reply),
                Line::Failed { message, of_the_words: true } => bail!(Usage(message)),
                Line::Failed { message, .. } => bail!("{message}"),
            }
        }
    }
    bail!(
        "the running serve ended before the work was done; start it again and repeat the command: nothing is done twice"
    )
}

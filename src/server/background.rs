//! The threads of the work that goes on by itself: they stand back where there is too little of the machine for all, so that
//! who posts an event, and waits, is answered while a commit or a merge of files is under way.

use std::{future::Future, io};

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// How far threads stand back: from 0 to 99, of which others have about the middle.
#[derive(Clone, Copy)]
pub struct Priority(u8);

impl Priority {
    /// Of what somebody waits for in the end. On Linux a niceness of 10, a tenth of the weight of another thread.
    pub const WORK: Priority = Priority(22);
    /// Of what may take as long as it likes: a niceness of 15, a third of that.
    pub const UPKEEP: Priority = Priority(10);
}

/// A runtime of its own, whose threads that may block stand back too.
pub struct Background {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn start(name: &str, priority: Priority) -> io::Result<Background> {
        let mut runtime = Builder::new_multi_thread();
        runtime.thread_name(name).enable_all().on_thread_start(move || stand_back(priority));
        let runtime = runtime.build()?;
        Ok(Background { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// What is spawned by `work`, and what it hands to threads that may block, stays here as well.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(work)
    }
}

/// Cuts off what still runs; to wait for it is not allowed here.
impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn stand_back(Priority(priority): Priority) {
    let set = ThreadPriorityValue::try_from(priority).and_then(|value| {
        set_current_thread_priority(ThreadPriority::Crossplatform(value)).map_err(|e| format!("{e:?}"))
    });
    if let Err(error) = set {
        tracing::debug!("background work has the priority of all else: {error}");
    }
}

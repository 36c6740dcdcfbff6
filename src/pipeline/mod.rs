//! Pipelines: which SQL makes which tables, when, and what must hold of them.
//!
//! The files are `pipelines/*.toml` and `sql/**/*.sql`; what ships is in the program, and a directory adds to it.
//! What always holds: a stored model is replaced whole, in one commit, so that a reader sees the old table or the new
//! one; a model is computed at one business time from one snapshot; what a failed model or check feeds is not computed.
//! Nothing here sends a message: segments and triggers are only read here, and acted on in `activate`.

mod doubt;
mod graph;
mod history;
mod incremental;
mod plan;
mod problem;
mod project;
mod read;
mod report;
mod runner;
mod section;
mod spec;
mod sql;
mod verify;
mod when;
mod work;

pub use doubt::doubt;
pub use graph::{Graph, Node};
pub use problem::{Problem, Problems};
pub use project::{Project, UnknownPipeline};
pub use report::{CheckOutcome, ModelOutcome, Report, Status};
pub use runner::{Request, RunError, Runner, Settings, views};
pub use spec::{Cap, Channel, Check, Materialize, Model, On, Pipeline, Purpose, Segment, Severity, Trigger};
pub use sql::Sql;
pub use when::When;

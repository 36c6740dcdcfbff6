//! What one run computes, and in which order.
//!
//! A run computes the models of the pipelines that were asked for and, before them, what these read of other pipelines
//! where it is stale; nothing else. Its checks are those of the pipelines asked for, and of other pipelines those that
//! look at a model computed here. A check stands right behind the last model that it looks at.

use std::collections::BTreeSet;

use super::{
    graph::Node,
    project::Project,
    spec::{Check, Model, Pipeline},
};

pub(super) enum Step<'a> {
    Model(&'a Pipeline, &'a Model),
    Check(&'a Pipeline, &'a Check),
}

/// The steps for the pipelines `chosen`. `stale` says of a model that others need whether it must be computed.
pub(super) fn steps<'a>(project: &'a Project, chosen: &[&Pipeline], stale: impl Fn(&Model) -> bool) -> Vec<Step<'a>> {
    let asked = |p: &Pipeline| chosen.iter().any(|c| c.name == p.name);
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for p in chosen {
        let checks = p.checks.iter().flat_map(|c| project.graph().check_inputs(p, c).to_vec());
        for name in p.models.iter().map(|m| m.name.clone()).chain(p.segments.iter().map(|s| s.table())).chain(checks) {
            needed.extend(project.graph().upstream(&name));
            needed.insert(name);
        }
    }
    let models: Vec<(&Pipeline, &Model)> =
        ordered_models(project).filter(|(p, m)| asked(p) || (needed.contains(&m.name) && stale(m))).collect();
    let mut waiting: Vec<(&Pipeline, &Check, BTreeSet<String>)> = Vec::new();
    for (p, c) in project.pipelines().iter().flat_map(|p| p.checks.iter().map(move |c| (p, c))) {
        let looked_at = looked_at(project, p, c);
        let on: BTreeSet<String> =
            models.iter().map(|(_, m)| &m.name).filter(|n| looked_at.contains(*n)).cloned().collect();
        if asked(p) || !on.is_empty() {
            waiting.push((p, c, on));
        }
    }
    let mut steps = Vec::new();
    take_ready(&mut waiting, &mut steps);
    for (p, m) in models {
        steps.push(Step::Model(p, m));
        for (_, _, on) in &mut waiting {
            on.remove(&m.name);
        }
        take_ready(&mut waiting, &mut steps);
    }
    steps
}

/// All that a check reads, itself and through models and segments.
pub(super) fn looked_at(project: &Project, pipeline: &Pipeline, check: &Check) -> BTreeSet<String> {
    let direct = project.graph().check_inputs(pipeline, check);
    direct.iter().flat_map(|t| project.graph().upstream(t)).chain(direct.iter().cloned()).collect()
}

fn ordered_models(project: &Project) -> impl Iterator<Item = (&Pipeline, &Model)> {
    project.graph().order().iter().filter_map(|node| match node {
        Node::Model { pipeline, model } => {
            let pipeline = project.pipelines().get(*pipeline)?;
            Some((pipeline, pipeline.models.get(*model)?))
        }
        Node::Segment { .. } => None,
    })
}

fn take_ready<'a>(waiting: &mut Vec<(&'a Pipeline, &'a Check, BTreeSet<String>)>, steps: &mut Vec<Step<'a>>) {
    waiting.retain(|(p, c, on)| {
        if on.is_empty() {
            steps.push(Step::Check(p, c));
        }
        !on.is_empty()
    });
}

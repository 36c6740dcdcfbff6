//! What reads what: the edges between models, segments and checks, taken from the tables that their SQL names.
//!
//! The order of a [`Graph`] puts each model behind all that it reads, and is the same for the same files. A project with
//! a circle, or with a model that reads a mart nobody makes, has no graph.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    problem::Problem,
    spec::{Check, Materialize, Model, Pipeline},
    sql::Sql,
};
use crate::base::suggest::did_you_mean;

/// A model or a segment, by its place in the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Model { pipeline: usize, model: usize },
    Segment { pipeline: usize, segment: usize },
}

/// See the module.
#[derive(Debug)]
pub struct Graph {
    /// Of each model and segment, by name, the tables that it reads.
    inputs: BTreeMap<String, Vec<String>>,
    /// Of each check, by pipeline and name, the tables that it reads.
    check_inputs: BTreeMap<(String, String), Vec<String>>,
    order: Vec<Node>,
}

impl Graph {
    pub(super) fn new(pipelines: &[Pipeline], problems: &mut Vec<Problem>) -> Option<Graph> {
        let before = problems.len();
        let places = places(pipelines);
        let mut inputs = BTreeMap::new();
        for place in places.values() {
            if let Some(tables) = tables(place.sql, &places, problems) {
                inputs.insert(place.name.clone(), tables);
            }
        }
        let mut check_inputs = BTreeMap::new();
        for (p, c) in pipelines.iter().flat_map(|p| p.checks.iter().map(move |c| (p, c))) {
            if let Some(tables) = tables(&c.sql, &places, problems) {
                check_inputs.insert((p.name.clone(), c.name.clone()), tables);
            }
        }
        let order = order(&places, &inputs);
        if let Err(circle) = &order {
            problems.push(circle_problem(circle, &places));
        }
        let sound = problems.len() == before;
        order.ok().filter(|_| sound).map(|order| Graph { inputs, check_inputs, order })
    }

    /// The tables that a model (`marts.x`) or a segment (`segments.x`) reads, sorted.
    pub fn inputs(&self, name: &str) -> &[String] {
        self.inputs.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn check_inputs(&self, pipeline: &Pipeline, check: &Check) -> &[String] {
        let key = (pipeline.name.clone(), check.name.clone());
        self.check_inputs.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// All models and segments, each behind what it reads.
    pub fn order(&self) -> &[Node] {
        &self.order
    }

    /// Everything that `name` reads through models and segments, itself not included.
    pub fn upstream(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&String> = self.inputs(name).iter().collect();
        while let Some(table) = open.pop() {
            if found.insert(table.clone()) {
                open.extend(self.inputs(table));
            }
        }
        found
    }
}

struct Place<'a> {
    node: Node,
    name: String,
    pipeline: &'a Pipeline,
    line: usize,
    sql: &'a Sql,
}

fn places(pipelines: &[Pipeline]) -> BTreeMap<String, Place<'_>> {
    let mut places = BTreeMap::new();
    for (i, p) in pipelines.iter().enumerate() {
        let models = p.models.iter().enumerate().map(|(m, model)| {
            let Model { name, line, sql, .. } = model;
            Place { node: Node::Model { pipeline: i, model: m }, name: name.clone(), pipeline: p, line: *line, sql }
        });
        let segments = p.segments.iter().enumerate().map(|(s, segment)| Place {
            node: Node::Segment { pipeline: i, segment: s },
            name: segment.table(),
            pipeline: p,
            line: segment.line,
            sql: &segment.sql,
        });
        for place in models.chain(segments) {
            places.entry(place.name.clone()).or_insert(place);
        }
    }
    places
}

/// The tables of one query; a mart or a segment among them that the project does not make is a problem.
fn tables(sql: &Sql, places: &BTreeMap<String, Place<'_>>, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
    let tables = match sql.tables() {
        Ok(tables) => tables,
        Err(problem) => {
            // One SQL file may be used twice.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            return None;
        }
    };
    for table in tables.iter().filter(|t| t.starts_with("marts.") || t.starts_with("segments.")) {
        if !places.contains_key(table) {
            let near = did_you_mean(table, places.keys().map(String::as_str));
            let line = sql.file_line(line_of(&sql.text, table));
            problems.push(Problem::new(
                &sql.file,
                line,
                format!("unknown table \"{table}\": no pipeline makes it{near}"),
            ));
        }
    }
    Some(tables)
}

/// The line, from 1, where `word` first stands.
fn line_of(text: &str, word: &str) -> usize {
    let found = text.to_ascii_lowercase().find(word).unwrap_or(0);
    1 + text.bytes().take(found).filter(|b| *b == b'\n').count()
}

/// Depth first in the order of the files, so that the order is a function of the files alone. `Err`: a circle, as the
/// names along it.
fn order(
    places: &BTreeMap<String, Place<'_>>,
    inputs: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Node>, Vec<String>> {
    let mut by_node: Vec<&Place<'_>> = places.values().collect();
    by_node.sort_by_key(|p| p.node);
    let mut walk = Walk { places, inputs, done: BTreeSet::new(), path: Vec::new(), order: Vec::new() };
    for place in by_node {
        walk.visit(&place.name)?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    places: &'a BTreeMap<String, Place<'a>>,
    inputs: &'a BTreeMap<String, Vec<String>>,
    done: BTreeSet<String>,
    path: Vec<String>,
    order: Vec<Node>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) -> Result<(), Vec<String>> {
        let Some(place) = self.places.get(name) else { return Ok(()) };
        if self.done.contains(name) {
            return Ok(());
        }
        if let Some(start) = self.path.iter().position(|n| n == name) {
            return Err(self.path.split_off(start));
        }
        self.path.push(name.to_owned());
        for input in self.inputs.get(name).into_iter().flatten() {
            self.visit(input)?;
        }
        self.path.pop();
        self.done.insert(name.to_owned());
        self.order.push(place.node);
        Ok(())
    }
}

fn circle_problem(circle: &[String], places: &BTreeMap<String, Place<'_>>) -> Problem {
    let step = |name: &String| match places.get(name) {
        Some(place) => format!("{name} ({})", place.sql.file),
        None => name.clone(),
    };
    let mut steps: Vec<String> = circle.iter().map(step).collect();
    let message = match circle {
        [_] => format!("{} reads itself", steps[0]),
        _ => {
            steps.extend(circle.first().cloned());
            format!("models read one another in a circle: {}", steps.join(" reads "))
        }
    };
    match circle.first().and_then(|name| places.get(name)) {
        Some(place) => Problem::new(&place.pipeline.file, place.line, message),
        None => Problem::new("pipelines", None, message),
    }
}

impl Materialize {
    /// Whether a run writes a table.
    pub fn is_stored(self) -> bool {
        self != Materialize::View
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::read::{Library, read};

    /// Pipelines of models `(name, sql)`, one pipeline each.
    fn graph(models: &[(&str, &str)]) -> (Option<Graph>, Vec<String>) {
        let mut problems = Vec::new();
        let pipelines: Vec<Pipeline> = models
            .iter()
            .map(|(name, sql)| {
                let path = format!("{name}.sql");
                let sql = Sql { file: format!("sql/{path}"), line: 1, text: (*sql).to_owned() };
                let toml = format!("name = \"{name}\"\n[[model]]\nname = \"marts.{name}\"\nsql = \"{path}\"\n");
                let file = format!("pipelines/{name}.toml");
                read(&file, &toml, &Library::from([(path, sql)]), &mut problems).unwrap()
            })
            .collect();
        let graph = Graph::new(&pipelines, &mut problems);
        (graph, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn each_model_comes_behind_what_it_reads_across_pipelines() {
        let (graph, problems) = graph(&[
            ("a", "SELECT * FROM marts.c JOIN core.orders ON true"),
            ("b", "SELECT 1 AS x"),
            ("c", "WITH b AS (SELECT 1) SELECT * FROM marts.d, b"),
            ("d", "SELECT * FROM core.people"),
        ]);
        assert_eq!(problems, [""; 0]);
        let graph = graph.unwrap();
        let order: Vec<usize> =
            graph.order().iter().map(|n| if let Node::Model { pipeline, .. } = n { *pipeline } else { 9 }).collect();
        assert_eq!(order, [3, 2, 0, 1]);
        let upstream: Vec<_> = graph.upstream("marts.a").into_iter().collect();
        assert_eq!(upstream, ["core.orders", "core.people", "marts.c", "marts.d"]);
    }

    #[test]
    fn a_circle_is_told_with_its_models_and_files() {
        let (graph, problems) =
            graph(&[("a", "SELECT * FROM marts.b"), ("b", "SELECT * FROM marts.c"), ("c", "SELECT * FROM marts.a")]);
        assert!(graph.is_none());
        assert_eq!(
            problems,
            ["pipelines/a.toml:3: models read one another in a circle: marts.a (sql/a.sql) reads marts.b (sql/b.sql) \
              reads marts.c (sql/c.sql) reads marts.a"]
        );
    }

    #[test]
    fn a_model_that_reads_itself_is_a_circle() {
        let (_, problems) = graph(&[("a", "SELECT * FROM marts.a")]);
        assert_eq!(problems, ["pipelines/a.toml:3: marts.a (sql/a.sql) reads itself"]);
    }

    #[test]
    fn a_mart_that_nobody_makes_is_named_with_its_neighbour() {
        let (_, problems) = graph(&[("orders", "SELECT 1 AS x"), ("b", "SELECT *\nFROM marts.ordres")]);
        let wanted =
            "sql/b.sql:2: unknown table \"marts.ordres\": no pipeline makes it; did you mean \"marts.orders\"?";
        assert_eq!(problems, [wanted]);
    }
}

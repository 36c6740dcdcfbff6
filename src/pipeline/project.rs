//! All pipelines of a merchant: those that ship with the program, and a directory's own beside or instead of them.
//!
//! A loaded [`Project`] holds together: names are unique, triggers name segments that exist, models do not read one
//! another in a circle. Whether the SQL fits the tables is for [`super::check`], which needs a session.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use rust_embed::RustEmbed;

use super::{
    graph::Graph,
    problem::{Problem, Problems},
    read::{Library, read},
    spec::{Model, Pipeline, Segment, Trigger},
    sql::Sql,
};
use crate::base::suggest::did_you_mean;

#[derive(RustEmbed)]
#[folder = "pipelines/"]
struct ShippedPipelines;

#[derive(RustEmbed)]
#[folder = "sql/"]
struct ShippedSql;

/// See the module.
#[derive(Debug)]
pub struct Project {
    pipelines: Vec<Pipeline>,
    graph: Graph,
}

impl Project {
    /// The shipped files, and those of `dir` (`dir/pipelines/*.toml`, `dir/sql/**/*.sql`) over them: a file of the
    /// same path replaces the shipped one. Every problem of every file is reported, in the files' order.
    pub fn load(dir: Option<&Path>) -> Result<Project, Problems> {
        let mut files = Files::shipped();
        let mut problems = Vec::new();
        if let Some(dir) = dir {
            files.overlay(dir, &mut problems);
        }
        let project = Project::from_files(files, &mut problems);
        problems.sort();
        match project {
            Some(project) if problems.is_empty() => Ok(project),
            _ => Err(Problems(problems)),
        }
    }

    fn from_files(files: Files, problems: &mut Vec<Problem>) -> Option<Project> {
        let pipelines: Vec<Pipeline> =
            files.pipelines.values().filter_map(|f| read(&f.file, &f.text, &files.sql, problems)).collect();
        unique_names(&pipelines, problems);
        let segments: Vec<&str> = pipelines.iter().flat_map(|p| &p.segments).map(|s| s.name.as_str()).collect();
        for trigger in pipelines.iter().flat_map(|p| &p.triggers) {
            if !segments.contains(&trigger.segment.as_str()) {
                let near = did_you_mean(&trigger.segment, segments.iter().copied());
                let message = format!("trigger \"{}\": no segment \"{}\"{near}", trigger.name, trigger.segment);
                problems.push(Problem::new(&trigger.file, trigger.line, message));
            }
        }
        let graph = Graph::new(&pipelines, problems)?;
        Some(Project { pipelines, graph })
    }

    /// In the order of their files' names.
    pub fn pipelines(&self) -> &[Pipeline] {
        &self.pipelines
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The pipeline of this name, or what to answer to whoever asked for it.
    pub fn pipeline(&self, name: &str) -> Result<&Pipeline, UnknownPipeline> {
        self.pipelines.iter().find(|p| p.name == name).ok_or_else(|| {
            let near = did_you_mean(name, self.pipelines.iter().map(|p| p.name.as_str()));
            let all: Vec<_> = self.pipelines.iter().map(|p| p.name.as_str()).collect();
            UnknownPipeline { name: name.to_owned(), near, all: all.join(", ") }
        })
    }

    pub fn models(&self) -> impl Iterator<Item = (&Pipeline, &Model)> {
        self.pipelines.iter().flat_map(|p| p.models.iter().map(move |m| (p, m)))
    }

    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.pipelines.iter().flat_map(|p| &p.segments)
    }

    pub fn segment(&self, name: &str) -> Option<&Segment> {
        self.segments().find(|s| s.name == name)
    }

    pub fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        self.pipelines.iter().flat_map(|p| &p.triggers)
    }

    pub fn trigger(&self, name: &str) -> Option<&Trigger> {
        self.triggers().find(|t| t.name == name)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no pipeline \"{name}\"{near}{} There are: {all}", if near.is_empty() { "." } else { "" })]
pub struct UnknownPipeline {
    name: String,
    near: String,
    all: String,
}

/// The texts that a project is made of.
struct Files {
    /// By file name.
    pipelines: BTreeMap<String, Sql>,
    /// By path below `sql/`.
    sql: Library,
}

impl Files {
    fn shipped() -> Files {
        let text =
            |file: String, bytes: &[u8]| Sql { file, line: 1, text: String::from_utf8_lossy(bytes).into_owned() };
        let pipelines = ShippedPipelines::iter()
            .filter(|n| n.ends_with(".toml"))
            .filter_map(|n| Some((n.to_string(), text(format!("pipelines/{n}"), &ShippedPipelines::get(&n)?.data))));
        // `sql/core/` holds views that are part of the engine.
        let sql = ShippedSql::iter()
            .filter(|n| n.ends_with(".sql") && !n.starts_with("core/"))
            .filter_map(|n| Some((n.to_string(), text(format!("sql/{n}"), &ShippedSql::get(&n)?.data))));
        Files { pipelines: pipelines.collect(), sql: sql.collect() }
    }

    fn overlay(&mut self, dir: &Path, problems: &mut Vec<Problem>) {
        if !dir.is_dir() {
            let message = "no such directory: set [pipelines] dir to one that holds pipelines/ and sql/";
            problems.push(Problem::new(&dir.display().to_string(), None, message));
            return;
        }
        take(&dir.join("pipelines"), "", "toml", &mut self.pipelines, problems);
        take(&dir.join("sql"), "", "sql", &mut self.sql, problems);
    }
}

/// Takes the files of `dir` with this extension, and of the folders in it, by their path below where it began.
fn take(dir: &Path, below: &str, extension: &str, into: &mut BTreeMap<String, Sql>, problems: &mut Vec<Problem>) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if below.is_empty() && e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => return problems.push(Problem::new(&dir.display().to_string(), None, e.to_string())),
    };
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let key = if below.is_empty() { name } else { format!("{below}/{name}") };
        let file = path.display().to_string();
        if path.is_dir() {
            take(&path, &key, extension, into, problems);
        } else if path.extension().is_some_and(|e| e == extension) {
            match fs::read_to_string(&path) {
                Ok(text) => drop(into.insert(key, Sql { file, line: 1, text })),
                Err(e) => problems.push(Problem::new(&file, None, e.to_string())),
            }
        }
    }
}

/// Pipelines, models, segments and triggers are each named once in all files.
fn unique_names(pipelines: &[Pipeline], problems: &mut Vec<Problem>) {
    let mut seen: HashMap<(&str, &str), (&str, usize)> = HashMap::new();
    for p in pipelines {
        let names = std::iter::once(("pipeline", &p.name, p.line))
            .chain(p.models.iter().map(|m| ("model", &m.name, m.line)))
            .chain(p.segments.iter().map(|s| ("segment", &s.name, s.line)))
            .chain(p.triggers.iter().map(|t| ("trigger", &t.name, t.line)));
        for (kind, name, line) in names {
            if let Some((file, first)) = seen.insert((kind, name), (&p.file, line)) {
                let message = format!("a second {kind} \"{name}\": the first stands in {file}:{first}");
                problems.push(Problem::new(&p.file, line, message));
            }
        }
        let mut checks: Vec<&str> = Vec::new();
        for c in &p.checks {
            if checks.contains(&c.name.as_str()) {
                problems.push(Problem::new(&p.file, c.line, format!("a second check \"{}\" in this file", c.name)));
            }
            checks.push(&c.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> Result<Project, Problems> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Project::load(Some(dir.path()))
    }

    #[test]
    fn what_ships_is_sound() {
        let project = Project::load(None).unwrap_or_else(|p| panic!("{p}"));
        let names: Vec<_> = project.pipelines().iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["conversion", "customers", "failures"]);
        assert!(project.segment("cart_abandoned").is_some());
        assert_eq!(project.trigger("win_back").unwrap().segment, "lapsed_champions");
    }

    #[test]
    fn a_file_of_the_same_name_replaces_the_shipped_one() {
        let mine = "name = \"failures\"\ndescription = \"mine\"\n";
        let project = project(&[("pipelines/failures.toml", mine)]).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(project.pipeline("failures").unwrap().description, "mine");
        assert_eq!(project.pipelines().len(), 3);
        assert!(project.pipeline("failure").unwrap_err().to_string().contains("did you mean \"failures\""));
    }

    #[test]
    fn a_merchants_own_model_may_read_a_shipped_one() {
        let toml = "name = \"mine\"\n[[model]]\nname = \"marts.loyal\"\nsql = \"mine/loyal.sql\"\n";
        let sql = "SELECT person_id FROM marts.rfm_scores WHERE segment = 'loyal'";
        let project = project(&[("pipelines/mine.toml", toml), ("sql/mine/loyal.sql", sql)]);
        let project = project.unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(project.graph().inputs("marts.loyal"), ["marts.rfm_scores"]);
    }

    #[test]
    fn problems_of_several_files_are_listed_together() {
        let a = "name = \"a\"\n[[model]]\nname = \"marts.rfm_scores\"\nsql = \"a.sql\"\n";
        let b = "name = \"a\"\n[[trigger]]\nname = \"t\"\nsegment = \"cart_abandonned\"\non = \"enter\"\nchannel = \"sms\"\n\
            template = \"t\"\npurpose = \"marketing\"\n";
        let problems =
            project(&[("pipelines/a.toml", a), ("pipelines/b.toml", b), ("sql/a.sql", "SELECT 1 AS x FROM")]);
        let text = problems.unwrap_err().to_string();
        assert!(text.contains("a second model \"marts.rfm_scores\""), "{text}");
        assert!(text.contains("b.toml:1: a second pipeline \"a\""), "{text}");
        assert!(text.contains("b.toml:3: trigger \"t\": no segment \"cart_abandonned\"; did you mean"), "{text}");
        assert!(text.contains("a.sql:1: Expected"), "{text}");
    }

    #[test]
    fn a_missing_directory_is_said() {
        let problems = Project::load(Some(Path::new("/nowhere/at/all"))).unwrap_err();
        assert!(problems.to_string().starts_with("/nowhere/at/all: no such directory"), "{problems}");
    }
}

//! A pipeline file: TOML -> typed values, with every mistake in it named by file and line.
//!
//! Reads on behind a mistake, so that one look shows all of them. Opens no file.

use std::{collections::BTreeMap, time::Duration};

use toml::de::DeTable;

use super::{
    problem::Problem,
    section::{At, Notes, Section, note},
    spec::{Cap, Channel, Check, Materialize, Model, On, Pipeline, Purpose, Segment, Severity, Trigger},
    sql::Sql,
    when::{When, parse_cron},
};
use crate::base::{suggest::did_you_mean, time::parse_span};

/// SQL files by their path below `sql/`.
pub(super) type Library = BTreeMap<String, Sql>;

/// Reads one file. What is wrong is added to `problems`, and the parts that are right are still read.
pub(super) fn read(file: &str, text: &str, library: &Library, problems: &mut Vec<Problem>) -> Option<Pipeline> {
    let mut notes = Notes::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        notes.add(error.span().map_or(0, |s| s.start), format!("this is not TOML: {}", error.message()));
    }
    let pipeline = if errors.is_empty() { pipeline(file, document.get_ref(), library, &mut notes) } else { None };
    problems.append(&mut notes.problems);
    pipeline
}

fn pipeline(file: &str, table: &DeTable<'_>, library: &Library, notes: &mut Notes<'_>) -> Option<Pipeline> {
    let mut section = Section::new("", table, 0);
    let name = section.required(notes, "name").and_then(|n| identifier(notes, "name", n));
    let description = section.string(notes, "description").map(|d| d.value).unwrap_or_default();
    let when = when(&mut section, notes);
    let models = section.tables(notes, "model", "[[model]]");
    let models = models.into_iter().filter_map(|s| model(s, library, notes)).collect();
    let checks = section.tables(notes, "check", "[[check]]");
    let checks = checks.into_iter().filter_map(|s| check(file, s, notes)).collect();
    let segments = section.tables(notes, "segment", "[[segment]]");
    let segments = segments.into_iter().filter_map(|s| segment(s, library, notes)).collect();
    let triggers = section.tables(notes, "trigger", "[[trigger]]");
    let triggers = triggers.into_iter().filter_map(|s| trigger(file, s, notes)).collect();
    section.finish(notes);
    let name = name?;
    let (file, line) = (file.to_owned(), notes.line(name.at));
    Some(Pipeline { name: name.value, description, file, line, when, models, checks, segments, triggers })
}

fn when(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> When {
    let cron = section.string(notes, "schedule").map(|t| (t.at, parse_cron(&t.value).map_err(|e| e.to_string())));
    let every = section
        .string(notes, "every")
        .map(|t| (t.at, parse_span(&t.value).map(When::Every).map_err(|e| e.to_string())));
    let on = section.choice(notes, "on", &[("commit", ())]).map(|()| (section.at, Ok(When::Commit)));
    let mut given: Vec<_> = [cron, every, on].into_iter().flatten().collect();
    if given.len() > 1 {
        notes.add(given[1].0, "a pipeline has one of \"schedule\", \"every\" and \"on\", not several");
    }
    match given.pop() {
        None => When::Asked,
        Some((_, Ok(when))) => when,
        Some((at, Err(why))) => {
            notes.add(at, why);
            When::Asked
        }
    }
}

fn model(mut section: Section<'_, '_>, library: &Library, notes: &mut Notes<'_>) -> Option<Model> {
    let name = section.required(notes, "name").and_then(|n| model_name(notes, n));
    let sql = section.required(notes, "sql").and_then(|path| sql_file(library, path, notes));
    let materialize = materialize(&mut section, notes);
    section.finish(notes);
    let name = name?;
    Some(Model { line: notes.line(name.at), name: name.value, sql: sql?, materialize: materialize? })
}

fn materialize(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Materialize> {
    let Some(value) = section.value("materialize") else { return Some(Materialize::Table) };
    let at = value.span().start;
    let Some(table) = value.get_ref().as_table() else {
        let words = [("table", Materialize::Table), ("view", Materialize::View)];
        return section.choice(notes, "materialize", &words);
    };
    let mut inner = Section::new("materialize", table, at);
    let unit = inner.required(notes, "incremental");
    let lookback_days =
        if table.contains_key("lookback_days") { inner.count(notes, "lookback_days")?.value } else { 0 };
    inner.finish(notes);
    match unit? {
        unit if unit.value == "day" => Some(Materialize::ByDay { lookback_days }),
        unit => note(notes, unit.at, format!("incremental = \"{}\": only \"day\" is known", unit.value)),
    }
}

fn check(file: &str, mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Check> {
    let name = section.required(notes, "name");
    let sql = section.required(notes, "sql").map(|text| inline_sql(file, text, notes));
    let words = [("error", Severity::Error), ("warn", Severity::Warn)];
    let severity = section.choice(notes, "severity", &words).unwrap_or(Severity::Error);
    section.finish(notes);
    let name = name?;
    Some(Check { line: notes.line(name.at), name: name.value, sql: sql?, severity })
}

fn segment(mut section: Section<'_, '_>, library: &Library, notes: &mut Notes<'_>) -> Option<Segment> {
    let name = section.required(notes, "name").and_then(|n| identifier(notes, "name", n));
    let sql = section.required(notes, "sql").and_then(|path| sql_file(library, path, notes));
    section.finish(notes);
    let name = name?;
    Some(Segment { line: notes.line(name.at), name: name.value, sql: sql? })
}

fn trigger(file: &str, mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Trigger> {
    let name = section.required(notes, "name").and_then(|n| identifier(notes, "name", n));
    let segment = section.required(notes, "segment");
    let on = on(&mut section, notes);
    let channel = section.required_choice(notes, "channel", &[("sms", Channel::Sms), ("email", Channel::Email)]);
    let template = section.required(notes, "template").and_then(|n| identifier(notes, "template", n));
    let words = [("marketing", Purpose::Marketing), ("transactional", Purpose::Transactional)];
    let purpose = section.required_choice(notes, "purpose", &words);
    let cap = cap(&mut section, notes);
    section.finish(notes);
    let name = name?;
    Some(Trigger {
        file: file.to_owned(),
        line: notes.line(name.at),
        name: name.value,
        segment: segment?.value,
        on: on?,
        channel: channel?,
        template: template?.value,
        purpose: purpose?,
        cap,
    })
}

fn on(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<On> {
    let every = section.string(notes, "every");
    let word = section.value("on").is_some();
    let on = section.choice(notes, "on", &[("enter", On::Enter), ("exit", On::Exit)]);
    match (every, word) {
        (Some(every), true) => note(notes, every.at, "a trigger has either \"on\" or \"every\", not both"),
        (Some(every), false) => span(every, notes).map(On::Every),
        (None, true) => on,
        (None, false) => section.missing(notes, "on"),
    }
}

fn cap(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Cap> {
    let value = section.value("cap")?;
    let at = value.span().start;
    let Some(table) = value.get_ref().as_table() else {
        return note(notes, at, "\"cap\" is written as cap = { messages = 1, per = \"7d\" }");
    };
    let mut inner = Section::new("cap", table, at);
    if !table.contains_key("messages") {
        inner.missing::<()>(notes, "messages");
    }
    let messages = inner.count(notes, "messages");
    let per = inner.required(notes, "per").and_then(|text| span(text, notes));
    inner.finish(notes);
    match messages? {
        At { value: 0, at } => note(notes, at, "messages = 0 would never send: leave the trigger out instead"),
        At { value: messages, .. } => Some(Cap { messages, per: per? }),
    }
}

fn span(text: At<String>, notes: &mut Notes<'_>) -> Option<Duration> {
    parse_span(&text.value).map_err(|e| notes.add(text.at, e.to_string())).ok()
}

fn model_name(notes: &mut Notes<'_>, name: At<String>) -> Option<At<String>> {
    match name.value.split_once('.') {
        Some(("marts", table)) if is_identifier(table) => Some(name),
        _ => note(notes, name.at, format!("a model is named marts.<name> in small letters, not \"{}\"", name.value)),
    }
}

fn identifier(notes: &mut Notes<'_>, key: &str, word: At<String>) -> Option<At<String>> {
    if is_identifier(&word.value) {
        return Some(word);
    }
    let message = format!("{key} = \"{}\": small letters, digits and _ only, a letter first", word.value);
    note(notes, word.at, message)
}

fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn sql_file(library: &Library, path: At<String>, notes: &mut Notes<'_>) -> Option<Sql> {
    library.get(&path.value).cloned().or_else(|| {
        let near = did_you_mean(&path.value, library.keys().map(String::as_str));
        note(notes, path.at, format!("no file sql/{}{near}", path.value))
    })
}

/// A check's SQL stands in the TOML itself. A text in three quotes begins on the line after them.
fn inline_sql(file: &str, text: At<String>, notes: &Notes<'_>) -> Sql {
    let below = ["\"\"\"\n", "'''\n", "\"\"\"\r\n", "'''\r\n"].iter().any(|q| notes.text_from(text.at).starts_with(q));
    Sql { file: file.to_owned(), line: notes.line(text.at) + usize::from(below), text: text.value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"name = "rfm"
description = "Who buys often, lately and much"
schedule = "0 2 * * *"

[[model]]
name = "marts.rfm_scores"
sql = "customers/rfm_scores.sql"
materialize = "table"

[[model]]
name = "marts.funnel_daily"
sql = "customers/rfm_scores.sql"
materialize = { incremental = "day", lookback_days = 3 }

[[check]]
name = "one row a person"
sql = """
SELECT person_id FROM marts.rfm_scores
GROUP BY 1 HAVING count(*) > 1"""
severity = "warn"

[[segment]]
name = "lapsed"
sql = "customers/rfm_scores.sql"

[[trigger]]
name = "win_back"
segment = "lapsed"
on = "enter"
channel = "sms"
template = "win_back"
purpose = "marketing"
cap = { messages = 1, per = "7d" }

[[trigger]]
name = "monthly"
segment = "lapsed"
every = "30d"
channel = "email"
template = "win_back"
purpose = "transactional"
"#;

    fn parse(text: &str) -> (Option<Pipeline>, Vec<String>) {
        let sql = Sql { file: "sql/customers/rfm_scores.sql".into(), line: 1, text: "SELECT 1".into() };
        let library = Library::from([("customers/rfm_scores.sql".to_owned(), sql)]);
        let mut problems = Vec::new();
        let pipeline = read("pipelines/rfm.toml", text, &library, &mut problems);
        (pipeline, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn every_part_of_the_contract_is_read() {
        let (pipeline, problems) = parse(WHOLE);
        assert_eq!(problems, [""; 0]);
        let p = pipeline.unwrap();
        assert_eq!((p.name.as_str(), p.models.len(), p.checks.len()), ("rfm", 2, 1));
        assert!(matches!(p.when, When::Cron(_)));
        assert_eq!(p.models[1].materialize, Materialize::ByDay { lookback_days: 3 });
        assert_eq!(p.models[1].line, 11);
        assert_eq!((p.checks[0].severity, p.checks[0].sql.line), (Severity::Warn, 18));
        assert_eq!(p.triggers[0].cap, Some(Cap { messages: 1, per: Duration::from_secs(604_800) }));
        assert_eq!(p.triggers[1].on, On::Every(Duration::from_secs(2_592_000)));
        assert_eq!((p.triggers[1].channel, p.triggers[1].purpose), (Channel::Email, Purpose::Transactional));
    }

    #[test]
    fn an_unknown_key_names_its_line_and_its_neighbour() {
        let (_, problems) = parse(&WHOLE.replace("materialize = \"table\"", "materialise = \"table\""));
        let wanted = r#"pipelines/rfm.toml:8: unknown key "materialise"; did you mean "materialize"?"#;
        assert_eq!(problems, [wanted]);
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let text = "nmae = \"x\"\nschedule = \"0 2 * *\"\non = \"comit\"\n[[model]]\nname = \"rfm\"\nsql = \"customers/rfm_score.sql\"\n\
            [[trigger]]\nname = \"t\"\nsegment = 3\nevery = \"monthly\"\nchannel = \"fax\"\ntemplate = \"x\"\npurpose = \"fun\"\n";
        let (pipeline, problems) = parse(text);
        assert!(pipeline.is_none());
        let has = |part: &str| assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:#?}");
        has(":1: the file lacks \"name\"");
        has(":1: unknown key \"nmae\"; did you mean \"name\"?");
        has(":2: \"0 2 * *\" is no cron expression");
        has(":3: on = \"comit\" is none of \"commit\"; did you mean \"commit\"?");
        has(":5: a model is named marts.<name>");
        has(":6: no file sql/customers/rfm_score.sql; did you mean \"customers/rfm_scores.sql\"?");
        has(":9: \"segment\" must be text, not an integer");
        has(":10: \"monthly\" is no span of time");
        has(":11: channel = \"fax\" is none of \"sms\", \"email\"");
        has(":13: purpose = \"fun\" is none of");
        assert_eq!(problems.len(), 10, "{problems:#?}");
    }

    #[test]
    fn a_pipeline_has_one_clock_and_a_trigger_one_occasion() {
        let (_, problems) = parse("name = \"x\"\nevery = \"5s\"\nschedule = \"0 2 * * *\"\n");
        assert!(problems[0].contains("not several"), "{problems:?}");
        let (_, problems) = parse(&WHOLE.replace("every = \"30d\"", "every = \"30d\"\non = \"exit\""));
        assert!(problems[0].contains("either \"on\" or \"every\""), "{problems:?}");
        let (_, problems) = parse(&WHOLE.replace("on = \"enter\"\n", ""));
        assert!(problems[0].contains("[[trigger]] lacks \"on\""), "{problems:?}");
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        let (pipeline, problems) = parse("name = \"x\"\n[[model]\n");
        assert!(pipeline.is_none());
        assert!(problems[0].starts_with("pipelines/rfm.toml:2: this is not TOML"), "{problems:?}");
    }
}

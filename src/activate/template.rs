//! What messages say: the files of `templates/`, named `<template>.<sms|email>.j2`.
//!
//! Jinja with undefined names forbidden, no includes, no macros, and a budget of work for each message. A template sees
//! the columns of its segment's row and `merchant`, nothing else. An empty column may be asked about (`{% if name %}`),
//! but never printed: nobody is greeted as "none". The first line of an e-mail is `Subject: …`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use minijinja::{
    AutoEscape, Environment, ErrorKind, UndefinedBehavior,
    value::{Serde, Value},
};

use super::{
    message::{Columns, Medium, Text},
    sms,
};
use crate::base::{Currency, Money, suggest::did_you_mean};

#[derive(rust_embed::RustEmbed)]
#[folder = "templates/"]
struct Shipped;

/// About 50,000 instructions or 3 MB of text: far above any message, far below what would be noticed.
const FUEL: u64 = 50_000;
const SUBJECT: &str = "Subject:";
/// The merchant's id, beside the columns.
const MERCHANT: &str = "merchant";

/// All templates: the shipped ones, and the merchant's own, which win.
pub struct Templates {
    environment: Environment<'static>,
    sources: BTreeMap<(String, Medium), Source>,
}

struct Source {
    /// As it is named to people.
    file: String,
    text: String,
    /// Why it cannot be used at all.
    broken: Option<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    line: usize,
    what: String,
}

/// What is wrong in a template, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub what: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("there is no template {name:?} for {medium}{hint}")]
    Unknown { name: String, medium: Medium, hint: String },
    #[error("{file}:{line}: {what}")]
    Broken { file: String, line: usize, what: String },
    #[error("{file} prints {columns}, which is empty for this person")]
    Empty { file: String, columns: String },
    #[error("{file}: the text is {length} characters long, and an SMS holds {}", sms::MAX_CHARACTERS)]
    TooLong { file: String, length: usize },
    #[error("{file}: the text came out empty")]
    Blank { file: String },
    #[error("{file}: the text came out without a line that says how to opt out (Reply STOP …)")]
    NoOptOut { file: String },
}

impl Templates {
    /// The shipped templates, under the merchant's own in `templates/` below the folder of the pipelines.
    pub fn beside(pipelines: Option<&Path>) -> Result<Templates, TemplateError> {
        Templates::load(pipelines.map(|dir| dir.join("templates")).as_deref())
    }

    /// The shipped templates, under those of `own`, a folder that may be absent.
    pub fn load(own: Option<&Path>) -> Result<Templates, TemplateError> {
        let mut texts: BTreeMap<(String, Medium), (String, String)> = BTreeMap::new();
        for name in Shipped::iter() {
            if let (Some(id), Some(file)) = (parse_name(&name), Shipped::get(&name)) {
                let text = String::from_utf8_lossy(&file.data).into_owned();
                texts.insert(id, (format!("templates/{name}"), text));
            }
        }
        for (id, path) in own.map_or_else(|| Ok(Vec::new()), own_files)? {
            let unreadable = |source| TemplateError::Unreadable { path: path.clone(), source };
            let text = std::fs::read_to_string(&path).map_err(unreadable)?;
            texts.insert(id, (path.display().to_string(), text));
        }
        let mut templates = Templates { environment: environment(), sources: BTreeMap::new() };
        for (id, (file, text)) in texts {
            templates.add(id, file, text);
        }
        Ok(templates)
    }

    /// Names and media of all templates.
    pub fn names(&self) -> impl Iterator<Item = (&str, Medium)> {
        self.sources.keys().map(|(name, medium)| (name.as_str(), *medium))
    }

    /// What is wrong with a template for a segment that yields `columns`; nothing where it is good.
    pub fn check(
        &self,
        name: &str,
        medium: Medium,
        marketing: bool,
        columns: &[&str],
    ) -> Result<Vec<Finding>, TemplateError> {
        let source = self.find(name, medium)?;
        let finding = |line, what| Finding { file: source.file.clone(), line, what };
        if let Some(fault) = &source.broken {
            return Ok(vec![finding(fault.line, fault.what.clone())]);
        }
        let mut findings = Vec::new();
        for variable in self.variables(name, medium) {
            if variable != MERCHANT && !columns.contains(&variable.as_str()) {
                let hint = did_you_mean(&variable, columns.iter().copied());
                let line = line_of(&source.text, &variable);
                findings.push(finding(line, format!("the segment yields no column \"{variable}\"{hint}")));
            }
        }
        findings.extend(self.rehearse(name, medium).map(|f| finding(f.line, f.what)));
        if marketing && medium == Medium::Sms && !sms::has_opt_out(&source.text) {
            let what = "marketing by SMS must say how to opt out: add a line like \"Reply STOP to opt out.\"";
            findings.push(finding(source.text.lines().count().max(1), what.to_owned()));
        }
        Ok(findings)
    }

    /// Writes a message. What it prints comes from `columns`.
    pub fn write(
        &self,
        name: &str,
        medium: Medium,
        marketing: bool,
        columns: &Columns,
        merchant: &str,
    ) -> Result<Text, TemplateError> {
        let source = self.find(name, medium)?;
        if let Some(Fault { line, what }) = &source.broken {
            return Err(TemplateError::Broken { file: source.file.clone(), line: *line, what: what.clone() });
        }
        let mut context = columns.clone();
        context.insert(MERCHANT.to_owned(), merchant.into());
        let context = Value::from(Serde(&context));
        let render = |part| {
            self.render(&part_name(name, medium, part), &context)
                .map_err(|e| self.explain(source, name, medium, &e, columns))
        };
        let file = || source.file.clone();
        let body = render(Part::Body)?.trim().to_owned();
        let subject = if medium == Medium::Email { Some(one_line(&render(Part::Subject)?)) } else { None };
        if body.is_empty() || subject.as_ref().is_some_and(String::is_empty) {
            return Err(TemplateError::Blank { file: file() });
        }
        if medium == Medium::Sms {
            let length = body.chars().count();
            if length > sms::MAX_CHARACTERS {
                return Err(TemplateError::TooLong { file: file(), length });
            }
            if marketing && !sms::has_opt_out(&body) {
                return Err(TemplateError::NoOptOut { file: file() });
            }
        }
        Ok(Text { subject, body })
    }

    fn add(&mut self, id: (String, Medium), file: String, text: String) {
        let (name, medium) = &id;
        let broken = match parts(*medium, &text) {
            Err(fault) => Some(fault),
            Ok(parts) => parts.into_iter().find_map(|(part, text)| {
                let added = self.environment.add_template_owned(part_name(name, *medium, part), text);
                added.err().map(|e| fault(&e))
            }),
        };
        self.sources.insert(id, Source { file, text, broken });
    }

    fn find(&self, name: &str, medium: Medium) -> Result<&Source, TemplateError> {
        self.sources.get(&(name.to_owned(), medium)).ok_or_else(|| {
            let names = self.names().filter(|(_, m)| *m == medium).map(|(n, _)| n);
            TemplateError::Unknown { name: name.to_owned(), medium, hint: did_you_mean(name, names) }
        })
    }

    /// The names that a template wants from outside, sorted.
    fn variables(&self, name: &str, medium: Medium) -> Vec<String> {
        let globals: Vec<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let mut names: Vec<String> = [Part::Subject, Part::Body]
            .iter()
            .filter_map(|part| self.environment.get_template(&part_name(name, medium, *part)).ok())
            .flat_map(|t| t.undeclared_variables(false))
            .filter(|v| !globals.contains(&v.as_str()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Runs a template once to find filters that do not exist, which parsing does not.
    fn rehearse(&self, name: &str, medium: Medium) -> Option<Fault> {
        let sample: BTreeMap<String, &str> = self.variables(name, medium).into_iter().map(|v| (v, "x")).collect();
        let context = Value::from(Serde(&sample));
        [Part::Subject, Part::Body].iter().find_map(|part| {
            let error = self.render(&part_name(name, medium, *part), &context).err()?;
            let unknown = [ErrorKind::UnknownFilter, ErrorKind::UnknownFunction, ErrorKind::UnknownTest];
            unknown.contains(&error.kind()).then(|| fault(&error))
        })
    }

    fn render(&self, part: &str, context: &Value) -> Result<String, minijinja::Error> {
        self.environment.get_template(part)?.render(context.clone())
    }

    fn explain(
        &self,
        source: &Source,
        name: &str,
        medium: Medium,
        error: &minijinja::Error,
        columns: &Columns,
    ) -> TemplateError {
        let empty = |v: &String| columns.get(v).is_some_and(serde_json::Value::is_null);
        let empty: Vec<String> = self.variables(name, medium).into_iter().filter(empty).collect();
        let file = source.file.clone();
        if error.kind() == ErrorKind::BadSerialization && !empty.is_empty() {
            return TemplateError::Empty { file, columns: empty.join(", ") };
        }
        let Fault { line, what } = fault(error);
        TemplateError::Broken { file, line, what }
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Subject,
    Body,
}

fn part_name(name: &str, medium: Medium, part: Part) -> String {
    format!("{name}.{medium}.{}", if matches!(part, Part::Subject) { "subject" } else { "body" })
}

/// Subject and body apart, each on the lines that it has in the file, so that errors name them.
fn parts(medium: Medium, text: &str) -> Result<Vec<(Part, String)>, Fault> {
    if medium == Medium::Sms {
        return Ok(vec![(Part::Body, text.to_owned())]);
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let wanted = || Fault { line: 1, what: format!("the first line of an e-mail is \"{SUBJECT} …\"") };
    let subject = first.trim_end().strip_prefix(SUBJECT).ok_or_else(wanted)?;
    Ok(vec![(Part::Subject, subject.to_owned()), (Part::Body, format!("\n{rest}"))])
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Both media are plain text.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        if value.is_none() {
            return Err(minijinja::Error::new(ErrorKind::BadSerialization, "an empty value cannot be printed"));
        }
        minijinja::escape_formatter(out, state, value)
    });
    environment.add_filter("money", money);
    environment
}

/// `{{ amount | money(currency) }}`: minor units for people, `1,234.50 GBP`.
fn money(minor: i64, currency: &str) -> Result<String, minijinja::Error> {
    let currency = Currency::parse(currency)
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, format!("money: {e}")))?;
    Ok(Money { minor, currency }.to_string())
}

fn fault(error: &minijinja::Error) -> Fault {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
    Fault { line: error.line().unwrap_or(1), what }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn parse_name(file: &str) -> Option<(String, Medium)> {
    let (name, medium) = file.strip_suffix(".j2")?.rsplit_once('.')?;
    Some((name.to_owned(), medium.parse().ok()?))
}

/// A template's name and medium, and where it lies.
type OwnFile = ((String, Medium), PathBuf);

fn own_files(folder: &Path) -> Result<Vec<OwnFile>, TemplateError> {
    let unreadable = |source| TemplateError::Unreadable { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        if let Some(id) = entry.file_name().to_str().and_then(parse_name) {
            files.push((id, entry.path()));
        }
    }
    Ok(files)
}

/// The first line on which `variable` stands inside a tag.
fn line_of(text: &str, variable: &str) -> usize {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
    let named = text.match_indices(variable).find(|(at, found)| {
        let (before, after) = (&text[..*at], &text[at + found.len()..]);
        let opened = before.rfind("{{").max(before.rfind("{%"));
        let closed = before.rfind("}}").max(before.rfind("%}"));
        let follows = after.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        opened.is_some() && opened > closed && !word(before.chars().next_back()) && !follows
    });
    1 + named.map_or(0, |(at, _)| text[..at].matches('\n').count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(files: &[(&str, &str)]) -> (tempfile::TempDir, Templates) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let templates = Templates::load(Some(folder.path())).unwrap();
        (folder, templates)
    }

    fn columns(value: serde_json::Value) -> Columns {
        value.as_object().unwrap().clone()
    }

    fn says(error: impl std::fmt::Display) -> String {
        let text = error.to_string();
        text.rsplit_once('/').map_or(text.clone(), |(_, tail)| tail.to_owned())
    }

    #[test]
    fn an_email_has_a_subject_and_amounts_are_exact() {
        let text = "Subject: {{ name }},\n\nYou owe {{ amount | money(currency) }}.\n";
        let (_folder, templates) = with(&[("owe.email.j2", text)]);
        let row = columns(json!({"name": "Ann\nBcc: all@example.com", "amount": 123_450, "currency": "gbp"}));
        let text = templates.write("owe", Medium::Email, false, &row, "shop").unwrap();
        assert_eq!(text.subject.unwrap(), "Ann Bcc: all@example.com,");
        assert_eq!(text.body, "You owe 1,234.50 GBP.");
    }

    #[test]
    fn a_wrong_column_is_found_with_its_line_and_neighbour() {
        let text = "Subject: hi\n\nYour cart, {{ frist_name }}, of {{ merchant }}\n{% if amuont %}x{% endif %}";
        let (_folder, templates) = with(&[("cart.email.j2", text)]);
        let found = templates.check("cart", Medium::Email, true, &["first_name", "amount"]).unwrap();
        let found: Vec<(usize, &str)> = found.iter().map(|f| (f.line, f.what.as_str())).collect();
        assert_eq!(
            found,
            [
                (4, "the segment yields no column \"amuont\"; did you mean \"amount\"?"),
                (3, "the segment yields no column \"frist_name\"; did you mean \"first_name\"?"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_parsed_or_run_is_found_with_its_line() {
        let (_folder, templates) =
            with(&[("a.sms.j2", "one\n{{ x "), ("b.sms.j2", "STOP\n\n{{ x | monney }}"), ("c.email.j2", "Hello\n")]);
        let first = |name, medium| templates.check(name, medium, true, &["x"]).unwrap().remove(0);
        assert_eq!(first("a", Medium::Sms).line, 2);
        assert_eq!(first("b", Medium::Sms).line, 3);
        assert!(first("b", Medium::Sms).what.contains("monney"));
        assert_eq!(first("c", Medium::Email).what, "the first line of an e-mail is \"Subject: …\"");
        let unknown = templates.check("win_bcak", Medium::Sms, true, &[]).unwrap_err().to_string();
        assert_eq!(unknown, "there is no template \"win_bcak\" for sms; did you mean \"win_back\"?");
    }

    #[test]
    fn marketing_by_sms_says_how_to_opt_out() {
        let (_folder, templates) = with(&[
            ("bare.sms.j2", "Come back!"),
            ("maybe.sms.j2", "Come back!{% if polite %} Reply STOP to opt out.{% endif %}"),
        ]);
        assert!(templates.check("bare", Medium::Sms, true, &[]).unwrap()[0].what.contains("opt out"));
        assert!(templates.check("bare", Medium::Sms, false, &[]).unwrap().is_empty());
        let row = columns(json!({"polite": false}));
        let error = templates.write("maybe", Medium::Sms, true, &row, "shop").unwrap_err();
        assert!(matches!(error, TemplateError::NoOptOut { .. }), "{error}");
    }

    #[test]
    fn nothing_empty_or_endless_is_written() {
        let (_folder, templates) = with(&[
            ("greet.sms.j2", "Hi {{ name }}"),
            ("ask.sms.j2", "Hi{% if name %} {{ name }}{% endif %}"),
            ("loop.sms.j2", "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}"),
        ]);
        let row = columns(json!({"name": null}));
        let write = |name| templates.write(name, Medium::Sms, false, &row, "shop");
        assert_eq!(says(write("greet").unwrap_err()), "greet.sms.j2 prints name, which is empty for this person");
        assert_eq!(write("ask").unwrap().body, "Hi");
        assert!(says(write("loop").unwrap_err()).contains("fuel"));
    }

    #[test]
    fn the_shipped_templates_can_be_written_and_a_text_message_is_one_segment() {
        let templates = Templates::load(None).unwrap();
        let mut names: Vec<String> = templates.names().map(|(n, m)| format!("{n}.{m}")).collect();
        names.sort();
        assert_eq!(
            names,
            ["cart_reminder.email", "cart_reminder.sms", "payment_retry.email", "payment_retry.sms", "win_back.sms"]
        );
        let row = columns(
            json!({"recency_days": 123, "items": 2, "amount": "1,234.50", "currency": "gbp", "category": "card_data"}),
        );
        for ((name, medium), source) in &templates.sources {
            assert_eq!(source.broken, None, "{}", source.file);
            let text = templates.write(name, *medium, name != "payment_retry", &row, "A shop's name").unwrap();
            if *medium == Medium::Sms {
                assert_eq!(sms::measure(&text.body).segments, 1, "{}", text.body);
            }
        }
    }
}

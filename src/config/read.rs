//! From a file and from environment variables to set options, each with its place for messages.

use std::{collections::HashMap, ffi::OsString, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    ConfigError, ENVIRONMENT_PREFIX, Settings,
    given::Given,
    options::{OPTIONS, Opt},
};
use crate::base::suggest::did_you_mean;

/// Where an option's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// `file:line`
    File(String),
    /// The variable's name.
    Environment(String),
}

/// By option; one that is not in here has its default.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(HashMap<&'static str, Origin>);

impl Origins {
    pub fn of(&self, option: &str) -> Option<&Origin> {
        self.0.get(option)
    }

    /// For a message.
    pub fn place(&self, option: &str) -> String {
        match self.of(option) {
            Some(Origin::File(at)) => at.clone(),
            Some(Origin::Environment(variable)) => format!("environment variable {variable}"),
            None => "default".to_owned(),
        }
    }
}

pub(super) fn file(settings: &mut Settings, path: &Path) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let at = |place: usize| format!("{}:{}", path.display(), line_of(&text, place));
    // The error's own text would quote the line, and with it perhaps a secret.
    let document = DeTable::parse(&text).map_err(|e| ConfigError::Syntax {
        at: at(e.span().map_or(0, |s| s.start)),
        message: e.message().to_owned(),
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));

    for (section, content) in document.get_ref() {
        let section_at = at(section.span().start);
        let section = section.get_ref().as_ref();
        known_section(section, &section_at)?;
        let DeValue::Table(entries) = content.get_ref() else {
            let why = format!("a section is wanted, as [{section}]");
            return Err(ConfigError::Bad { at: section_at, option: section.to_owned(), why });
        };
        for (key, value) in entries {
            let given = Given::File { value: value.get_ref(), folder };
            let at = at(key.span().start);
            set(settings, section, key.get_ref(), &given, Origin::File(at))?;
        }
    }
    Ok(())
}

pub(super) fn environment<V: Into<OsString>>(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (String, V)>,
) -> Result<(), ConfigError> {
    let mut ours: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
    ours.sort_by(|a, b| a.0.cmp(&b.0));
    for (variable, value) in ours {
        let at = format!("environment variable {variable}");
        let name = variable.trim_start_matches(ENVIRONMENT_PREFIX).to_lowercase();
        let Ok(value) = value.into().into_string() else {
            return Err(ConfigError::Bad { at, option: name, why: "it is not UTF-8".to_owned() });
        };
        // What starts processes often hands on an empty variable for one that is not set.
        if value.trim().is_empty() {
            continue;
        }
        let Some((section, key)) = name.split_once("__") else {
            let hint = format!("; write {ENVIRONMENT_PREFIX}SECTION__KEY");
            return Err(ConfigError::UnknownOption { at, option: name, hint });
        };
        known_section(section, &at)?;
        set(settings, section, key, &Given::Environment(&value), Origin::Environment(variable.clone()))?;
    }
    Ok(())
}

fn set(
    settings: &mut Settings,
    section: &str,
    key: &str,
    given: &Given<'_>,
    origin: Origin,
) -> Result<(), ConfigError> {
    let name = format!("{section}.{key}");
    let at = match &origin {
        Origin::File(at) => at.clone(),
        Origin::Environment(variable) => format!("environment variable {variable}"),
    };
    let Some(option) = OPTIONS.iter().find(|o| o.name == name) else {
        let hint = hint_for(section, key);
        return Err(ConfigError::UnknownOption { at, option: name, hint });
    };
    (option.set)(settings, given).map_err(|why| ConfigError::Bad { at, option: name, why })?;
    settings.origins.0.insert(option.name, origin);
    Ok(())
}

fn known_section(section: &str, at: &str) -> Result<(), ConfigError> {
    if OPTIONS.iter().any(|o| o.section() == section) {
        return Ok(());
    }
    let hint = did_you_mean(section, OPTIONS.iter().map(Opt::section));
    Err(ConfigError::UnknownSection { at: at.to_owned(), section: section.to_owned(), hint })
}

/// The nearest key of the section; else the section that does have this key; else all keys of the section.
fn hint_for(section: &str, key: &str) -> String {
    let keys = || OPTIONS.iter().filter(|o| o.section() == section).map(Opt::key);
    let hint = did_you_mean(key, keys());
    if !hint.is_empty() {
        return hint;
    }
    match OPTIONS.iter().find(|o| o.key() == key) {
        Some(elsewhere) => format!("; did you mean \"{}\"?", elsewhere.name),
        None => format!("; [{section}] has {}", keys().collect::<Vec<_>>().join(", ")),
    }
}

fn line_of(text: &str, place: usize) -> usize {
    1 + text.as_bytes().iter().take(place).filter(|b| **b == b'\n').count()
}

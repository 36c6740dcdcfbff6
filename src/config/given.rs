//! An option's value as written, and the readings of it. A reading that fails says what was wanted.
//!
//! Errors name the kind of what was found and never the text itself, unless the reader of a public option adds it.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::{DeInteger, DeValue};

use super::BaseUrl;
use crate::base::time::parse_span;

/// In a file a value has a type; in the environment it is text that is read as the option wants it.
pub(super) enum Given<'a> {
    /// With the folder of the file, from which a relative path is taken.
    File {
        value: &'a DeValue<'a>,
        folder: &'a Path,
    },
    Environment(&'a str),
}

impl Given<'_> {
    pub fn text(&self) -> Result<String, String> {
        let text = match self {
            Given::Environment(text) => text,
            Given::File { value: DeValue::String(text), .. } => text.as_ref(),
            Given::File { value, .. } => return Err(wanted("a text in quotes", value)),
        };
        match text.trim() {
            "" => Err("it is empty: give it a value, or leave it out".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    pub fn whole(&self, range: RangeInclusive<u32>) -> Result<u32, String> {
        let want = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match self {
            Given::Environment(text) => text.trim().parse().map_err(|_| format!("{want} is wanted"))?,
            Given::File { value: DeValue::Integer(number), .. } => {
                integer(number).ok_or_else(|| format!("{want} is wanted, not {number}"))?
            }
            Given::File { value, .. } => return Err(wanted(&want, value)),
        };
        if range.contains(&number) { Ok(number) } else { Err(format!("{want} is wanted, not {number}")) }
    }

    /// A size, as `512MiB` or `4GiB`, in MiB.
    pub fn mebibytes(&self, range: RangeInclusive<usize>) -> Result<usize, String> {
        let text = self.text()?;
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number = digits.parse::<usize>().ok();
        let size = match unit.trim_start() {
            "MiB" => number,
            "GiB" => number.and_then(|n| n.checked_mul(1024)),
            _ => None,
        };
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            format!("a size from {}MiB to {}MiB is wanted, as 4GiB, not \"{text}\"", range.start(), range.end())
        })
    }

    /// A span of time, as `90s` or `5m`.
    pub fn span(&self) -> Result<Duration, String> {
        parse_span(&self.text()?).map_err(|e| e.to_string())
    }

    pub fn yes_or_no(&self) -> Result<bool, String> {
        match self {
            Given::File { value: DeValue::Boolean(yes), .. } => Ok(*yes),
            Given::File { value, .. } => Err(wanted("true or false", value)),
            Given::Environment(text) => match text.trim() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err("true or false is wanted".to_owned()),
            },
        }
    }

    /// A list of texts; in the environment separated by commas.
    pub fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Given::Environment(text) => {
                Ok(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
            }
            Given::File { value: DeValue::Array(items), folder } => {
                items.iter().map(|i| Given::File { value: i.get_ref(), folder }.text()).collect()
            }
            Given::File { value, .. } => Err(wanted("a list of texts, as [\"a\", \"b\"]", value)),
        }
    }

    /// A path; one in a file is relative to the file's folder.
    pub fn path(&self) -> Result<PathBuf, String> {
        let path = self.text()?;
        Ok(match self {
            Given::File { folder, .. } => folder.join(path),
            Given::Environment(_) => PathBuf::from(path),
        })
    }

    /// The address of a provider's API, or of ourselves. The error does not repeat it: it may hold a password.
    pub fn address(&self) -> Result<BaseUrl, String> {
        let wanted = "an address is wanted, as https://api.example.com, without user, password or query";
        BaseUrl::parse(&self.text()?).ok_or_else(|| wanted.to_owned())
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        let known: Vec<_> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
        let found = words.iter().find(|(w, _)| *w == text);
        found.map(|(_, t)| *t).ok_or_else(|| format!("{} is wanted, not \"{text}\"", known.join(" or ")))
    }
}

fn integer(number: &DeInteger<'_>) -> Option<u32> {
    u32::from_str_radix(number.as_str(), number.radix()).ok()
}

fn wanted(what: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    format!("{what} is wanted, not {found}")
}

//! Reading a table of a TOML file key by key, so that every mistake in the file is found in one go.
//!
//! serde stops at the first mistake and cannot say the line of an unknown key's neighbour; a person who corrects a
//! file wants all of them. A [`Section`] remembers which keys were asked for: what is left at [`Section::finish`] is
//! unknown. Nothing here knows what a pipeline is.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::Problem;
use crate::base::suggest::did_you_mean;

/// Collects the problems of one file.
pub(super) struct Notes<'a> {
    file: &'a str,
    text: &'a str,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Notes<'a> {
        Notes { file, text, problems: Vec::new() }
    }

    /// The line, from 1, that byte `at` stands in.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }

    pub(super) fn add(&mut self, at: usize, message: impl Into<String>) {
        self.problems.push(Problem::new(self.file, self.line(at), message));
    }

    pub(super) fn text_from(&self, at: usize) -> &'a str {
        self.text.get(at..).unwrap_or_default()
    }
}

/// A value and the byte that it starts at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// One table of the file.
pub(super) struct Section<'d, 'i> {
    /// As in errors: `[[model]]`, or empty for the whole file.
    name: &'static str,
    table: &'d DeTable<'i>,
    pub(super) at: usize,
    asked: Vec<&'static str>,
}

impl<'d, 'i> Section<'d, 'i> {
    pub(super) fn new(name: &'static str, table: &'d DeTable<'i>, at: usize) -> Self {
        Section { name, table, at, asked: Vec::new() }
    }

    pub(super) fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    pub(super) fn string(&mut self, notes: &mut Notes<'_>, key: &'static str) -> Option<At<String>> {
        let value = self.value(key)?;
        let at = value.span().start;
        match value.get_ref().as_str() {
            Some(text) if !text.trim().is_empty() => Some(At { value: text.to_owned(), at }),
            Some(_) => note(notes, at, format!("\"{key}\" is empty")),
            None => note(notes, at, format!("\"{key}\" must be text, not {}", a(value.get_ref().type_str()))),
        }
    }

    pub(super) fn required(&mut self, notes: &mut Notes<'_>, key: &'static str) -> Option<At<String>> {
        if !self.table.contains_key(key) {
            self.asked.push(key);
            return self.missing(notes, key);
        }
        self.string(notes, key)
    }

    pub(super) fn missing<T>(&self, notes: &mut Notes<'_>, keys: &str) -> Option<T> {
        let place = if self.name.is_empty() { "the file" } else { self.name };
        note(notes, self.at, format!("{place} lacks \"{keys}\""))
    }

    /// A whole number from 0 to `u32::MAX`.
    pub(super) fn count(&mut self, notes: &mut Notes<'_>, key: &'static str) -> Option<At<u32>> {
        let value = self.value(key)?;
        let at = value.span().start;
        let number = value.get_ref().as_integer().and_then(|i| u32::from_str_radix(i.as_str(), i.radix()).ok());
        match number {
            Some(value) => Some(At { value, at }),
            None => note(notes, at, format!("\"{key}\" must be a whole number, as {key} = 3")),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let word = self.string(notes, key)?;
        match choices.iter().find(|(name, _)| *name == word.value) {
            Some((_, value)) => Some(*value),
            None => note(notes, word.at, not_one_of(key, &word.value, choices.iter().map(|(name, _)| *name))),
        }
    }

    pub(super) fn required_choice<T: Copy>(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.asked.push(key);
            return self.missing(notes, key);
        }
        self.choice(notes, key, choices)
    }

    /// The tables of an array `[[key]]`.
    pub(super) fn tables(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        name: &'static str,
    ) -> Vec<Section<'d, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let items = value.get_ref().as_array();
        let sections: Option<Vec<_>> = items.and_then(|items| {
            items.iter().map(|v| Some(Section::new(name, v.get_ref().as_table()?, v.span().start))).collect()
        });
        sections.unwrap_or_else(|| {
            notes.add(value.span().start, format!("\"{key}\" must be tables, each under a line {name}"));
            Vec::new()
        })
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, notes: &mut Notes<'_>) {
        for (key, _) in self.table.iter().filter(|(k, _)| !self.asked.contains(&k.get_ref().as_ref())) {
            let word = key.get_ref();
            let near = did_you_mean(word, self.asked.iter().copied());
            notes.add(key.span().start, format!("unknown key \"{word}\"{near}"));
        }
    }
}

/// Notes a problem and is nothing.
pub(super) fn note<T>(notes: &mut Notes<'_>, at: usize, message: impl Into<String>) -> Option<T> {
    notes.add(at, message);
    None
}

pub(super) fn not_one_of<'a>(key: &str, word: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = did_you_mean(word, names.clone());
    let names: Vec<_> = names.map(|n| format!("\"{n}\"")).collect();
    format!("{key} = \"{word}\" is none of {}{near}", names.join(", "))
}

fn a(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

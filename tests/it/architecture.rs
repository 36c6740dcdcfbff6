//! The layers hold: a module imports only from lower layers, foreign crates are named only in their room, and there is
//! one version of the crates whose types must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Lowest first; modules of one line do not import each other. As drawn in src/lib.rs.
const LAYERS: [&[&str]; 12] = [
    &["base"],
    &["config"],
    &["telemetry"],
    &["facts", "net", "store"],
    &["log", "lake"],
    &["sources", "load", "engine", "models", "synth"],
    &["pipeline"],
    &["activate"],
    &["ops"],
    &["server"],
    &["cli"],
    &["main"],
];

/// A foreign crate and the only modules that may name it, or the only parts of them.
const ROOMS: [(&str, &[&str]); 9] = [
    ("rdkafka", &["log/kafka", "sources/kafka"]),
    ("fjall", &["store"]),
    ("deltalake_core", &["lake"]),
    ("reqwest", &["net"]),
    ("axum", &["server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("clap", &["cli", "main"]),
    ("minijinja", &["activate"]),
];

/// Modules that may import only these, whatever their layer. The sample shop must not lean on the code it tests.
const RESTRICTED: [(&str, &[&str]); 2] = [("synth", &["base"]), ("facts", &["base"])];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

#[test]
fn modules_import_only_from_lower_layers() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path()) {
        let place = Place::of(&file);
        if place.module == "lib" || place.module == "tests" {
            continue;
        }
        seen.insert(place.module.clone());
        let Some(own) = layer(&place.module) else {
            faults.push(format!("{}: module {} stands in no layer", place.shown, place.module));
            continue;
        };
        for name in names(&file, place.depth) {
            match name {
                Name::Ours(other) if other != place.module => match layer(&other) {
                    None => {}
                    Some(l) if l >= own => {
                        faults.push(format!("{}: imports {other}, which is not below {}", place.shown, place.module))
                    }
                    Some(_) => {
                        if let Some((_, allowed)) = RESTRICTED.iter().find(|(m, _)| *m == place.module)
                            && !allowed.contains(&other.as_str())
                        {
                            faults.push(format!("{}: {} may import only {allowed:?}", place.shown, place.module));
                        }
                    }
                },
                Name::Ours(_) => {}
                Name::Foreign(krate) => {
                    if let Some((_, rooms)) = ROOMS.iter().find(|(c, _)| *c == krate)
                        && !rooms.iter().any(|room| place.is_in(room))
                    {
                        faults.push(format!("{}: names {krate}, which only {rooms:?} may", place.shown));
                    }
                }
            }
        }
    }
    assert!(seen.contains("base") && seen.len() > 8, "the test found the modules: {seen:?}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn there_is_one_version_of_the_crates_whose_types_must_agree() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        versions.entry(package["name"].as_str().unwrap()).or_default().push(package["version"].as_str().unwrap());
    }
    for name in ["arrow", "arrow-array", "arrow-schema", "parquet", "datafusion", "datafusion-expr", "object_store"] {
        assert_eq!(versions[name].len(), 1, "{name} {:?}", versions[name]);
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let missing: Vec<_> = rust_files(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path())
        .into_iter()
        .filter(|f| !fs::read_to_string(f).unwrap().starts_with("//!"))
        .collect();
    assert!(missing.is_empty(), "no //! head: {missing:?}");
}

struct Place {
    shown: String,
    /// The top-level module that the file belongs to.
    module: String,
    /// How many `super` lead from the file's module to the crate's root.
    depth: usize,
}

impl Place {
    fn of(file: &Path) -> Place {
        let inside = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let mut parts: Vec<String> =
            inside.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
        if parts.last().is_some_and(|p| p == "mod") {
            parts.pop();
        }
        Place { shown: format!("src/{}", inside.display()), module: parts[0].clone(), depth: parts.len() }
    }

    fn is_in(&self, room: &str) -> bool {
        let inside = self.shown.strip_prefix("src/").and_then(|path| path.strip_prefix(room));
        inside.is_some_and(|rest| rest.starts_with(['/', '.']))
    }
}

enum Name {
    /// A top-level module of ours.
    Ours(String),
    /// The first part of a path that does not start at our crate.
    Foreign(String),
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All path heads of a file. Tokens are read rather than syntax, so that macros hide nothing; tests may use what they like.
fn names(file: &Path, depth: usize) -> Vec<Name> {
    let tokens: TokenStream = fs::read_to_string(file).unwrap().parse().unwrap();
    let mut found = Vec::new();
    walk(tokens, depth, &mut found);
    found
}

fn walk(tokens: TokenStream, depth: usize, found: &mut Vec<Name>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut i = 0;
    while i < tokens.len() {
        if is_cfg_test(&tokens[i..]) {
            i += 2;
            while i < tokens.len() && !ends_item(&tokens[i]) {
                i += 1;
            }
            i += 1;
            continue;
        }
        match &tokens[i] {
            TokenTree::Group(group) => walk(group.stream(), depth, found),
            TokenTree::Ident(word) if word == "mod" => {
                if let Some(TokenTree::Group(body)) = tokens.get(i + 2) {
                    walk(body.stream(), depth + 1, found);
                    i += 2;
                }
            }
            TokenTree::Ident(word) if word == "crate" || word == "tillstream" => {
                found.extend(after_colons(&tokens[i + 1..]).into_iter().map(Name::Ours));
            }
            TokenTree::Ident(word) if word == "super" => {
                let mut ups = 1;
                while tokens.get(i + 3).is_some_and(|t| matches!(t, TokenTree::Ident(w) if w == "super")) {
                    ups += 1;
                    i += 3;
                }
                if ups == depth {
                    found.extend(after_colons(&tokens[i + 1..]).into_iter().map(Name::Ours));
                }
            }
            TokenTree::Ident(word) if !continues_a_path(&tokens[..i]) && leads_a_path(&tokens[i + 1..]) => {
                found.push(Name::Foreign(word.to_string()));
            }
            _ => {}
        }
        i += 1;
    }
}

fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
        if hash.as_char() == '#' && attribute.stream().to_string().replace(' ', "") == "cfg(test)")
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    }
}

fn leads_a_path(rest: &[TokenTree]) -> bool {
    matches!(rest, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}

fn continues_a_path(before: &[TokenTree]) -> bool {
    matches!(before, [.., TokenTree::Punct(a), TokenTree::Punct(b)] if a.as_char() == ':' && b.as_char() == ':')
}

/// The names that `::a` or `::{a::b, c}` start with.
fn after_colons(rest: &[TokenTree]) -> Vec<String> {
    if !leads_a_path(rest) {
        return Vec::new();
    }
    match rest.get(2) {
        Some(TokenTree::Ident(name)) => vec![name.to_string()],
        Some(TokenTree::Group(group)) => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            inner
                .split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ','))
                .filter_map(|part| match part.first() {
                    Some(TokenTree::Ident(name)) => Some(name.to_string()),
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

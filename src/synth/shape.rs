//! JSON documents with slots: the text of a shape stands in `shapes/` as its source would send it, and `@name` marks
//! what differs from event to event.
//!
//! A filled shape is one line of well-formed JSON. Filling copies bytes and builds no tree, so that generation is never
//! slower than what reads it. In a shape, white space is for the reader and is dropped; inside a string, `@{name}`
//! stands for text that needs no escape.

/// A parsed shape.
pub(super) struct Shape {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    /// A whole JSON value.
    Value(&'static str),
    /// Text inside a string.
    Inner(&'static str),
}

/// What goes into a slot.
#[derive(Clone, Copy)]
pub(super) enum Slot<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// JSON already, or nothing at all.
    Json(&'a str),
    Write(&'a dyn Fn(&mut Vec<u8>)),
}

impl Shape {
    pub fn parse(text: &'static str) -> Shape {
        let mut shape = Shape { pieces: Vec::new() };
        let (mut literal, mut quoted, mut rest) = (String::new(), false, text);
        while let Some(c) = rest.chars().next() {
            let tail = &rest[c.len_utf8()..];
            match (c, quoted) {
                ('@', false) => {
                    let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
                    shape.slot(&mut literal, Piece::Value(&tail[..end]));
                    rest = &tail[end..];
                    continue;
                }
                ('@', true) if tail.starts_with('{') => {
                    let end = tail.find('}').unwrap_or(tail.len());
                    shape.slot(&mut literal, Piece::Inner(&tail[1..end]));
                    rest = tail.get(end + 1..).unwrap_or_default();
                    continue;
                }
                ('"', _) => quoted = !quoted,
                _ => {}
            }
            if quoted || !c.is_whitespace() {
                literal.push(c);
            }
            rest = tail;
        }
        shape.pieces.push(Piece::Text(literal));
        shape
    }

    fn slot(&mut self, literal: &mut String, slot: Piece) {
        self.pieces.push(Piece::Text(std::mem::take(literal)));
        self.pieces.push(slot);
    }

    /// Appends the document to `out`. Slots are found fastest when given in the shape's order.
    pub fn fill(&self, slots: &[(&'static str, Slot)], out: &mut Vec<u8>) {
        let mut near = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(name) => find(slots, &mut near, name).write(out),
                Piece::Inner(name) => {
                    if let Slot::Text(text) = find(slots, &mut near, name) {
                        out.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
    }
}

fn find<'a>(slots: &[(&'static str, Slot<'a>)], near: &mut usize, name: &str) -> Slot<'a> {
    let found = (0..slots.len()).map(|i| (*near + i) % slots.len()).find(|&i| slots[i].0 == name);
    debug_assert!(found.is_some(), "nothing was given for the slot @{name}");
    found.map_or(Slot::Null, |i| {
        *near = i + 1;
        slots[i].1
    })
}

impl Slot<'_> {
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Slot::Null => out.extend_from_slice(b"null"),
            Slot::Bool(true) => out.extend_from_slice(b"true"),
            Slot::Bool(false) => out.extend_from_slice(b"false"),
            Slot::Int(number) => integer(number, out),
            Slot::Text(text) => string(text, out),
            Slot::Json(json) => out.extend_from_slice(json.as_bytes()),
            Slot::Write(write) => write(out),
        }
    }
}

impl<'a> From<&'a str> for Slot<'a> {
    fn from(text: &'a str) -> Self {
        Slot::Text(text)
    }
}

impl<'a> From<&'a String> for Slot<'a> {
    fn from(text: &'a String) -> Self {
        Slot::Text(text)
    }
}

impl From<i64> for Slot<'_> {
    fn from(number: i64) -> Self {
        Slot::Int(number)
    }
}

impl From<bool> for Slot<'_> {
    fn from(yes: bool) -> Self {
        Slot::Bool(yes)
    }
}

impl<'a, T: Into<Slot<'a>>> From<Option<T>> for Slot<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Slot::Null, Into::into)
    }
}

fn integer(number: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.bytes() {
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            0..0x20 => out.extend_from_slice(format!("\\u{c:04x}").as_bytes()),
            _ => out.push(c),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_shape_is_one_line_of_json() {
        let shape = Shape::parse("{ \"a b\": @first,\n \"url\": \"/x/@{id}/y\", \"n\": [@n, @none]@more }");
        let mut out = Vec::new();
        let first = "a \"quoted\" \\ line\nbreak é";
        let write = |out: &mut Vec<u8>| Slot::from(i64::MIN).write(out);
        let slots = [
            ("first", first.into()),
            ("id", "re_1".into()),
            ("n", Slot::Write(&write)),
            ("none", None::<&str>.into()),
            ("more", Slot::Json("")),
        ];
        shape.fill(&slots, &mut out);
        assert!(!out.contains(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, serde_json::json!({"a b": first, "url": "/x/re_1/y", "n": [i64::MIN, null]}));
    }
}

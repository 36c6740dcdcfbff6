//! How long an SMS is: its alphabet and the segments it is billed as.
//!
//! GSM 03.38: 160 septets in one segment, 153 in each of several, where an extension character takes two; any character
//! outside that alphabet makes the whole message UCS-2: 70 units, 67 in each of several. No character is split.

use serde::{Deserialize, Serialize};

/// The most that Twilio takes in one message (Messages API, `Body`).
pub const MAX_CHARACTERS: usize = 1600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alphabet {
    Gsm7,
    Ucs2,
}

/// What a text costs to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    pub alphabet: Alphabet,
    pub segments: usize,
    pub characters: usize,
}

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
                     abcdefghijklmnopqrstuvwxyzäöñüà";
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

pub fn measure(text: &str) -> Length {
    let septets = |c: char| match () {
        () if BASIC.contains(c) => Some(1),
        () if EXTENSION.contains(c) => Some(2),
        () => None,
    };
    let characters = text.chars().count();
    match text.chars().map(septets).collect::<Option<Vec<usize>>>() {
        Some(costs) => Length { alphabet: Alphabet::Gsm7, segments: segments(&costs, 160, 153), characters },
        None => {
            let costs: Vec<usize> = text.chars().map(char::len_utf16).collect();
            Length { alphabet: Alphabet::Ucs2, segments: segments(&costs, 70, 67), characters }
        }
    }
}

/// The word by which the recipient stops the messages, as the opt-out keywords that carriers act on.
pub fn has_opt_out(text: &str) -> bool {
    const WORDS: [&str; 3] = ["STOP", "UNSUBSCRIBE", "退订"];
    // Whole words in capitals: "stop by our shop" tells nobody how to opt out.
    WORDS.iter().any(|word| {
        text.match_indices(word).any(|(at, found)| {
            let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let ascii = word.is_ascii();
            !ascii || (!letter(text[..at].chars().next_back()) && !letter(text[at + found.len()..].chars().next()))
        })
    })
}

fn segments(costs: &[usize], single: usize, each: usize) -> usize {
    if costs.iter().sum::<usize>() <= single {
        return 1;
    }
    let mut count = 1;
    let mut used = 0;
    for cost in costs {
        if used + cost > each {
            count += 1;
            used = 0;
        }
        used += cost;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Alphabet, usize) {
        let length = measure(text);
        (length.alphabet, length.segments)
    }

    #[test]
    fn segments_are_counted_as_carriers_bill_them() {
        assert_eq!(of(""), (Alphabet::Gsm7, 1));
        assert_eq!(of(&"a".repeat(160)), (Alphabet::Gsm7, 1));
        assert_eq!(of(&"a".repeat(161)), (Alphabet::Gsm7, 2));
        assert_eq!(of(&"a".repeat(306)), (Alphabet::Gsm7, 2));
        assert_eq!(of(&"a".repeat(307)), (Alphabet::Gsm7, 3));
        assert_eq!(of(&"€".repeat(80)), (Alphabet::Gsm7, 1));
        assert_eq!(of(&"€".repeat(81)), (Alphabet::Gsm7, 2));
        // 153 is odd: an extension character does not straddle two segments, so each holds 76 of them.
        assert_eq!(of(&"€".repeat(153)), (Alphabet::Gsm7, 3));
        assert_eq!(of(&"ж".repeat(70)), (Alphabet::Ucs2, 1));
        assert_eq!(of(&"ж".repeat(71)), (Alphabet::Ucs2, 2));
        assert_eq!(of(&"🛒".repeat(35)), (Alphabet::Ucs2, 1));
        assert_eq!(of(&"🛒".repeat(67)), (Alphabet::Ucs2, 3));
        assert_eq!(of("Cafe\u{301}"), (Alphabet::Ucs2, 1));
    }

    #[test]
    fn an_opt_out_line_names_a_keyword() {
        assert!(has_opt_out("Reply STOP to stop."));
        assert!(has_opt_out("回复退订取消"));
        assert!(!has_opt_out("Stop by our shop"));
        assert!(!has_opt_out("NONSTOP music"));
    }
}

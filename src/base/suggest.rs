//! "Did you mean …?"

/// The candidate nearest to `word`, where one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    among(word, &mut candidates.into_iter())
}

fn among<'a>(word: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(&word.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= 1 + word.len().min(c.len()) / 4)
        .min()
        .map(|(_, c)| c)
}

/// `; did you mean "x"?`, or nothing.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|c| format!("; did you mean \"{c}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_a_stranger_is_not() {
        assert_eq!(nearest("amout", ["currency", "amount"]), Some("amount"));
        assert_eq!(nearest("weather", ["currency", "amount"]), None);
    }
}

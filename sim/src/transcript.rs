//! Steps of nodes in words, for violations and for the comparison of two runs.
//!
//! This module formats text. It does not choose steps and does not judge them.

use std::fmt::Write as _;

/// Longest text of an action or event, in characters.
const WORDS_MAX: usize = 220;

/// One step in words.
#[derive(Clone, Debug)]
pub(crate) struct StepText {
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) event: String,
    pub(crate) actions: Vec<String>,
}

/// One step as lines: time, node (as a number and as a column), event, actions.
pub(crate) fn lines(step: &StepText) -> String {
    let column = format!("{:>width$}", step.node, width = step.node * 2 + 1);
    let mut text = format!("{:>14} {column:<12} {}", seconds(step.at), cut(&step.event, WORDS_MAX));
    for action in &step.actions {
        let _ = write!(text, "\n{:>29}> {}", "", cut(action, WORDS_MAX));
    }
    text
}

/// One step as a single line, with nothing left out.
pub(crate) fn full_line(step: &StepText) -> String {
    format!("{} node {}: {} > {}", seconds(step.at), step.node, step.event, step.actions.join("; "))
        .replace('\n', " ")
}

pub(crate) fn seconds(ns: u64) -> String {
    format!("{}.{:06}s", ns / 1_000_000_000, ns % 1_000_000_000 / 1000)
}

/// The text around the first difference of two texts.
pub(crate) fn difference(one: &str, other: &str) -> String {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let around =
        |text: &str| text.chars().skip(same.saturating_sub(200)).take(400).collect::<String>();
    format!("{} against {}", around(one), around(other))
}

/// At most `most` characters of a text; two dots mark what was cut.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}..", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(cut("aé", 2), "aé");
        assert_eq!(cut("aéb", 2), "aé..");
    }
}

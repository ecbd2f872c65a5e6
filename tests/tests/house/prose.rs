//! The words and sentence beginnings that comments and documents do not have.
//!
//! This is a short list of habits that made sentences hard to read. It does not judge grammar.

use super::holds_word;

/// A place in a file: its line, from 1, and the words there.
pub(crate) type Found = (usize, String);

/// Phrases that have a plainer form: "N" or "this many", "the node that", a name.
const BANNED: [&str; 9] = [
    "so many",
    "so much",
    "whoever",
    "whom",
    "how-manieth",
    "'s stead",
    "their stead",
    "its stead",
    "whosoever",
];

/// Words that begin a question, and no other sentence.
const ASKING: [&str; 3] = ["Who", "What", "Whose"];

/// The banned phrases in the prose of a file.
pub(crate) fn banned(prose: &[Found]) -> Vec<Found> {
    let mut found = Vec::new();
    for (line, text) in prose {
        let lower = text.to_lowercase();
        let phrases = BANNED.iter().filter(|phrase| {
            phrase.starts_with('\'') && lower.contains(*phrase) || holds_word(&lower, phrase)
        });
        found.extend(phrases.map(|phrase| (*line, (*phrase).to_owned())));
    }
    found
}

/// The sentences that begin with a word of [`ASKING`] and do not ask. A sentence begins at the start of a paragraph or
/// after a full stop.
pub(crate) fn riddles(prose: &[Found]) -> Vec<Found> {
    let mut found = Vec::new();
    for (line, paragraph) in paragraphs(prose) {
        for sentence in paragraph.split_inclusive(". ").flat_map(|part| part.split_inclusive("? "))
        {
            let first = sentence.split_whitespace().next().unwrap_or_default();
            let is_cell = sentence.contains('|');
            if ASKING.contains(&first) && !is_cell && !sentence.trim_end().ends_with('?') {
                found.push((line, sentence.trim_end().chars().take(60).collect()));
            }
        }
    }
    found
}

/// Comments of one word, which only repeat that something has a name.
pub(crate) fn one_word(prose: &[Found]) -> Vec<Found> {
    let single = |(_, text): &(usize, String)| {
        let word = text.trim_end_matches('.');
        text.ends_with('.') && !word.is_empty() && word.chars().all(char::is_alphanumeric)
    };
    paragraphs(prose).into_iter().filter(single).collect()
}

/// The comments of a source file, line by line.
pub(crate) fn comments(text: &str) -> Vec<Found> {
    let comment = |line: &str| {
        let at = line.find("// ").or_else(|| line.find("/// ")).or_else(|| line.find("//! "))?;
        let is_whole = line[..at].trim_matches('/').trim().is_empty();
        let words = line[at..].trim_start_matches('/').trim_start_matches('!').trim();
        is_whole.then(|| words.to_owned())
    };
    text.lines().zip(1..).filter_map(|(line, at)| Some((at, comment(line)?))).collect()
}

/// The text of a document, line by line, without its code.
pub(crate) fn document(text: &str) -> Vec<Found> {
    let mut inside = false;
    let mut found = Vec::new();
    for (line, at) in text.lines().zip(1..) {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        if !inside && !fence && !line.trim().is_empty() {
            found.push((at, line.trim().to_owned()));
        }
    }
    found
}

/// Joins lines that follow each other.
fn paragraphs(prose: &[Found]) -> Vec<Found> {
    let mut found: Vec<(usize, usize, String)> = Vec::new();
    for (line, text) in prose {
        match found.last_mut().filter(|(_, last, _)| last + 1 == *line) {
            Some((_, last, joined)) => {
                *last = *line;
                joined.push(' ');
                joined.push_str(text);
            }
            None => found.push((*line, *line, text.clone())),
        }
    }
    found.into_iter().map(|(first, _, text)| (first, text)).collect()
}

#[cfg(test)]
mod the_reader {
    use super::*;

    #[test]
    fn finds_riddles_and_leaves_questions() {
        let text =
            "/// What it is.\nfn a() {}\n/// Who asks? What a question.\n// It holds. Who knows?\n";
        let found = riddles(&comments(text));
        assert_eq!(found, [(1, "What it is.".to_owned()), (3, "What a question.".to_owned())]);
    }

    #[test]
    fn finds_words_and_single_words() {
        let prose = comments("/// So many bytes of the peer's stead.\nx: u8,\n/// Who.\ny: u8,\n");
        let words: Vec<String> = banned(&prose).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["so many", "'s stead"]);
        assert_eq!(one_word(&prose), [(3, "Who.".to_owned())]);
    }

    #[test]
    fn reads_documents_without_their_code() {
        assert_eq!(document("a\n```\nwhom\n```\n\nb"), [(1, "a".to_owned()), (6, "b".to_owned())]);
    }
}

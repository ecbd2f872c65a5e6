//! Texts of others, made visible: a terminal shows them and does not obey them.
//!
//! Names, keys, values and words of peers and clients may hold control characters. Whatever may reach a terminal goes
//! through here: the command line's output on one, and every line of the log, which somebody reads on one later.

use std::fmt::{self, Display, Write as _};

/// Which control characters may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// None: the text is one line or one cell.
    Nothing,
    /// Ends of lines and tabs: the text stands alone.
    Lines,
}

/// Control characters, marks that turn the direction of writing, and bytes that are no text become escapes.
pub(crate) fn visible(bytes: &[u8], keep: Keep) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for one in chunk.valid().chars() {
            let stays = keep == Keep::Lines && (one == '\n' || one == '\t');
            let turns = matches!(one, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if stays || !(one.is_control() || turns) {
                shown.push(one);
            } else {
                match one {
                    '\n' => shown.push_str("\\n"),
                    '\r' => shown.push_str("\\r"),
                    '\t' => shown.push_str("\\t"),
                    // As JSON has it, so that JSON stays what it is. A write to memory does not fail.
                    _ => {
                        let _ = write!(shown, "\\u{:04x}", u32::from(one));
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// A part of one line.
pub(crate) struct Visible<'a>(pub(crate) &'a dyn Display);

impl Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(self.0.to_string().as_bytes(), Keep::Nothing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_line_stays_in_its_line_and_commands_nothing() {
        let hostile = "a\u{1b}[2J\u{9b}b\u{202e}\n ERROR forged: x\r\t\u{7f}é";
        assert_eq!(
            Visible(&hostile).to_string(),
            "a\\u001b[2J\\u009bb\\u202e\\n ERROR forged: x\\r\\t\\u007fé"
        );
    }
}

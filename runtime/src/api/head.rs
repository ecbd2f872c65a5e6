//! The raw head of a request, seen before hyper reads it: whether it declares its body's length in two ways.
//!
//! Two readers may then disagree where the body ends (RFC 9112, 6.3), and hyper drops one of the two without a word.
//! This module parses nothing else. A head that arrives together with the request before it is not seen; hyper closes
//! the connection after it.

/// The longest name that is looked for, and its colon.
const NAME_BYTES: usize = 18;

/// The beginning of the present line, and what the lines before it declared.
#[derive(Debug, Default)]
pub(super) struct Head {
    line: [u8; NAME_BYTES],
    length: usize,
    has_length: bool,
    has_coding: bool,
    has_begun: bool,
    is_complete: bool,
}

impl Head {
    /// Looks at the next bytes of the connection, up to the end of the head.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.is_complete {
                return;
            }
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                byte => {
                    if let Some(place) = self.line.get_mut(self.length) {
                        *place = byte.to_ascii_lowercase();
                    }
                    self.length += 1;
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.length.min(NAME_BYTES)];
        self.has_length |= line.starts_with(b"content-length:");
        self.has_coding |= line.starts_with(b"transfer-encoding:");
        // Empty lines before the request line are no head.
        self.is_complete = self.length == 0 && self.has_begun;
        self.has_begun |= self.length > 0;
        self.length = 0;
    }

    /// Whether the head declared both a length and a transfer coding.
    pub(super) const fn is_ambiguous(&self) -> bool {
        self.has_length && self.has_coding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ambiguous(text: &str) -> bool {
        let whole = {
            let mut head = Head::default();
            head.feed(text.as_bytes());
            head.is_ambiguous()
        };
        // Byte by byte it is the same.
        let mut head = Head::default();
        text.bytes().for_each(|byte| head.feed(&[byte]));
        assert_eq!(head.is_ambiguous(), whole, "{text:?}");
        whole
    }

    #[test]
    fn only_both_in_one_head_are_ambiguous() {
        let length = "Content-Length: 5\r\n";
        let coding = "TRANSFER-encoding: chunked\r\n";
        let first = "PUT / HTTP/1.1\r\n";
        assert!(is_ambiguous(&format!("{first}{length}{coding}\r\n")));
        assert!(is_ambiguous(&format!("\r\n\r\n{first}{coding}host: a\r\n{length}\r\n")));
        assert!(is_ambiguous(&format!("{first}{coding}content-length: 5\n\n")));
        assert!(!is_ambiguous(&format!("{first}{coding}\r\n{length}")));
        assert!(!is_ambiguous(&format!("{first}x-{length}{coding}\r\n")));
        assert!(!is_ambiguous(&format!("{first}{length}\r\n{coding}")));
    }
}

//! Two counts of writes: the core's, in which every write has a token, and the log's, in which pieces of side files have
//! none, because they never go into the log.
//!
//! Both agree when a process starts, and part with its first piece.

use std::collections::VecDeque;

use continuum_core::id::Token;

/// Translates the core's tokens of this process into the log's.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Tokens of pieces that are still in reach of a release, oldest first.
    pieces: VecDeque<u64>,
    /// Pieces before them.
    forgotten: u64,
}

impl Tokens {
    /// Notes that this token went to a side file.
    pub(super) fn piece(&mut self, token: Token) {
        self.pieces.push_back(token.seq);
    }

    /// Notes that this token went to the log. When it is that of the last piece as well, the record stands in for the
    /// piece there, and the counts do not part.
    pub(super) fn record(&mut self, token: Token) {
        self.pieces.pop_back_if(|piece| *piece == token.seq);
    }

    /// The log's token of a write; for a piece, that of the log's next write.
    pub(super) fn to_log(&self, token: Token) -> Token {
        let before = self.pieces.partition_point(|piece| *piece < token.seq) as u64;
        Token { lane: token.lane, seq: token.seq - self.forgotten - before }
    }

    /// Tokens below this one are never asked for again.
    pub(super) fn forget(&mut self, before: Token) {
        while self.pieces.front().is_some_and(|piece| *piece < before.seq) {
            self.pieces.pop_front();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_stands_in_for_a_piece_keeps_the_counts_together() {
        let token = |seq| Token { lane: 0, seq };
        let mut tokens = Tokens::default();
        tokens.piece(token(10));
        assert_eq!(tokens.to_log(token(10)).seq, 10);
        tokens.record(token(10));
        tokens.record(token(11));
        assert_eq!(tokens.to_log(token(11)).seq, 11);
    }

    #[test]
    fn pieces_leave_no_gap_in_the_log() {
        let token = |seq| Token { lane: 0, seq };
        let mut tokens = Tokens::default();
        let mut log = Vec::new();
        for seq in 10..20 {
            if seq % 3 == 0 {
                tokens.piece(token(seq));
            } else {
                log.push(tokens.to_log(token(seq)).seq);
            }
        }
        assert_eq!(log, [10, 11, 12, 13, 14, 15, 16]);
        tokens.forget(token(16));
        assert_eq!(tokens.to_log(token(19)).seq, 16);
        assert_eq!(tokens.to_log(token(16)).seq, 14);
    }
}

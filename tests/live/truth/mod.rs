//! The suite `truth`: one federation and one truth, whatever a founder, a peer or a clock does.
//!
//! Each row writes strong and eventual data beside its attack, and looks at the end on every node for all that was
//! acknowledged.

mod clocks;
mod copies;
mod floods;
mod forged;
mod founding;
mod tokens;
mod voters;

use crate::row::Row;

/// The rows, theme by theme.
pub(crate) const THEMES: &[&[Row]] = &[
    founding::ROWS,
    voters::ROWS,
    copies::ROWS,
    forged::ROWS,
    floods::ROWS,
    tokens::ROWS,
    clocks::ROWS,
];

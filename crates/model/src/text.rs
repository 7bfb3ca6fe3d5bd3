//! Text from a target, made safe to show.

use std::fmt::Write as _;

pub use crate::{
    figures::{counted, duration, grouped},
    glob::glob,
};

/// Characters of a foreign string that are shown.
pub const SHOWN: usize = 300;

/// Makes a foreign string safe for a terminal: control characters, direction marks and the like are
/// escaped, and it is cut at `limit` characters.
pub fn escape(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            out.push('…');
            break;
        }
        if is_harmless(character) {
            out.push(character);
        } else {
            let _ = write!(out, "{}", character.escape_unicode());
        }
    }
    out
}

/// The same with the usual limit.
pub fn shown(text: &str) -> String {
    escape(text, SHOWN)
}

fn is_harmless(character: char) -> bool {
    !(character.is_control()
        || matches!(
            character,
            // Marks that reorder or hide text, and separators that break lines.
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{61c}' | '\u{180e}'
        ))
}

/// Cuts a string to `limit` characters.
pub fn cut(text: &str, limit: usize) -> String {
    let mut text = text.to_owned();
    wire::cut(&mut text, limit);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_obeys() {
        assert_eq!(escape("a\x1b[31mb\r\n", 99), "a\\u{1b}[31mb\\u{d}\\u{a}");
        assert_eq!(escape("x\u{202e}y\u{9b}2J", 99), "x\\u{202e}y\\u{9b}2J");
        assert_eq!(escape("größe ✓", 99), "größe ✓");
        assert_eq!(escape("abcdef", 3), "abc…");
    }

    #[test]
    fn cuts_by_characters() {
        assert_eq!(cut("größe", 3), "grö");
        assert_eq!(cut("ab", 3), "ab");
    }
}

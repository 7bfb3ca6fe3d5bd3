//! Text from a target, made safe to show.

use std::{borrow::Cow, fmt::Write as _};

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

/// Makes JSON safe for a terminal, too: what [`escape`] would escape stands in it as `\u009b`. Its strings say
/// the same.
pub fn json(text: &str) -> Cow<'_, str> {
    // All that is no ASCII, or DEL, is inside of strings.
    if text.bytes().all(|byte| byte < 0x7f) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_ascii() && character != '\u{7f}' || is_harmless(character) {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    Cow::Owned(out)
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
    fn json_says_the_same_without_what_a_terminal_obeys() {
        let hostile = "a\x1b[31m\u{9b}2J\u{202e}\u{200b}\u{e0041}\u{7f}größe ✓ 𝕏\n\"";
        let raw = serde_json::to_string(&[hostile]).unwrap();
        assert!(raw.contains('\u{9b}'));
        let safe = json(&raw);
        assert!(
            safe.contains(r"\u001b[31m\u009b2J\u202e\u200b\udb40\udc41\u007fgröße ✓ 𝕏\n"),
            "{safe}"
        );
        assert!(safe.chars().all(is_harmless));
        let back: Vec<String> = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, [hostile]);
        assert!(matches!(json("{\"a\":1}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn cuts_by_characters() {
        assert_eq!(cut("größe", 3), "grö");
        assert_eq!(cut("ab", 3), "ab");
    }
}

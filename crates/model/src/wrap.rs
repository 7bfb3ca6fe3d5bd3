//! Lines of a terminal, broken between words.

use std::os::fd::AsFd;

/// A narrower terminal is left to break lines itself.
const NARROW: usize = 20;
/// Ends colours.
const PLAIN: &str = "\x1b[0m";

/// Columns of a terminal; `None` of what is none.
pub fn columns(file: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(file).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// Breaks a line between words, so that none has more columns; each further line begins with `indent`. A word that is
/// longer stays whole: names and paths are to be copied. Colours (`ESC [ … m`) end before a break, and go on after the
/// indent. Each character counts as one column.
pub fn wrap(line: &str, columns: usize, indent: &str) -> String {
    let indented = width(indent);
    if columns < NARROW || indented * 2 > columns || width(line) <= columns {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len() + line.len() / 8);
    let (mut column, mut colour) = (0, "");
    for (place, word) in line.split(' ').enumerate() {
        let wide = width(word);
        let fits = column + 1 + wide <= columns;
        if place > 0 && (fits || column <= indented) {
            out.push(' ');
            column += 1;
        } else if place > 0 {
            out.truncate(out.trim_end_matches(' ').len());
            if !colour.is_empty() {
                out.push_str(PLAIN);
            }
            out.push('\n');
            out.push_str(indent);
            out.push_str(colour);
            column = indented;
        }
        out.push_str(word);
        column += wide;
        colour = colours(word).last().unwrap_or(colour);
        if colour == PLAIN {
            colour = "";
        }
    }
    out
}

/// Columns of a text.
fn width(text: &str) -> usize {
    let escapes: usize = colours(text).map(|colour| colour.chars().count()).sum();
    text.chars().count() - escapes
}

/// The sequences of a text that change its colour.
fn colours(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("\x1b[").filter_map(|(at, _)| {
        let inside = &text[at + 2..];
        let end =
            inside.find(|character: char| !(character.is_ascii_digit() || character == ';'))?;
        inside[end..]
            .starts_with('m')
            .then(|| &text[at..at + 2 + end + 1])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn between_words_and_never_within() {
        let line = "one two three four five six seven";
        assert_eq!(wrap(line, 80, "  "), line);
        assert_eq!(wrap(line, 20, "  "), "one two three four\n  five six seven");
        let path = "look at /a/very/long/path/that/has/no/place/anywhere please";
        assert_eq!(
            wrap(path, 24, "    "),
            "look at\n    /a/very/long/path/that/has/no/place/anywhere\n    please"
        );
        // Nowhere to break, or too narrow.
        assert_eq!(wrap(line, 10, ""), line);
        assert_eq!(
            wrap("├─ ✓ averyveryverylongname", 20, "│      "),
            "├─ ✓ averyveryverylongname"
        );
    }

    #[test]
    fn colours_do_not_count_and_do_not_leak_into_the_indent() {
        let line = "\x1b[31mone two three four five\x1b[0m six seven";
        assert_eq!(
            wrap(line, 20, "│ "),
            "\x1b[31mone two three four\x1b[0m\n│ \x1b[31mfive\x1b[0m six seven"
        );
    }

    proptest! {
        #[test]
        fn all_words_are_there_and_no_line_is_too_long(
            words in proptest::collection::vec("[a-zä]{1,12}", 1..40),
            columns in 20usize..120,
        ) {
            let line = words.join(" ");
            let wrapped = wrap(&line, columns, "    ");
            for line in wrapped.lines() {
                prop_assert!(line.chars().count() <= columns, "{}", line);
            }
            prop_assert_eq!(wrapped.split_whitespace().collect::<Vec<_>>(), words);
        }

        #[test]
        fn nothing_is_too_strange(line in "(\\PC| |\x1b\\[|[0-9;m]){0,60}", columns in 0usize..60) {
            let _ = wrap(&line, columns, "│  ");
        }
    }
}

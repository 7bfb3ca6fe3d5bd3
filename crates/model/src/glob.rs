//! Patterns as shells have them.

/// Shell-like matching: `*`, `?`, `[a-z]`, `[!a-z]`. Linear in practice: only the last star is
/// gone back to.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(pattern, p, text[t]),
            Some(byte) if *byte == text[t] => Some(p + 1),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, from))) => {
                p = after;
                t = from + 1;
                star = Some((after, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Matches `byte` against the class that begins at `start`; the place after it where it matches.
fn class(pattern: &[u8], start: usize, byte: u8) -> Option<usize> {
    let mut at = start + 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let first = at;
    let mut matched = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return (matched != negated).then_some(at + 1);
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                matched |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                matched |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("shop::*", "shop::Cart::total", true),
            ("shop::*", "shopping::x", false),
            ("*order*", "create_order", true),
            ("f?o", "foo", true),
            ("f[a-z]o", "foo", true),
            ("f[!a-z]o", "foo", false),
            ("*a*b*c", "xaxbxc", true),
            ("*a*b*c", "xaxbxcx", false),
            ("**", "", true),
            ("[", "[", false),
            ("a[]b]c", "a]c", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn glob_never_panics_and_star_matches(pattern in "[a-c*?\\[\\]!-]{0,12}", text in "[a-c]{0,12}") {
            let _ = glob(pattern.as_bytes(), text.as_bytes());
            prop_assert!(glob(b"*", text.as_bytes()));
            prop_assert!(glob(text.as_bytes(), text.as_bytes()));
        }
    }
}

//! Numbers as people write them: `10`, `2m`, `1h30m`, `500ms`, `10%`, `256MiB`.

/// Units of time and their lengths in seconds, the longer names first.
const UNITS: [(&str, f64); 12] = [
    ("seconds", 1.0),
    ("second", 1.0),
    ("hours", 3600.0),
    ("sec", 1.0),
    ("min", 60.0),
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];

/// Units of size and their powers of two.
const SIZES: [(&str, u32); 8] = [
    ("", 0),
    ("b", 0),
    ("k", 10),
    ("kib", 10),
    ("m", 20),
    ("mib", 20),
    ("g", 30),
    ("gib", 30),
];

/// Digits may be grouped by single underscores, as the reference client reads them.
fn ungrouped(text: &str) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |place: Option<usize>| {
        place
            .and_then(|place| bytes.get(place))
            .is_some_and(u8::is_ascii_digit)
    };
    let fine = bytes.iter().enumerate().all(|(place, byte)| {
        *byte != b'_' || (digit(place.checked_sub(1)) && digit(Some(place + 1)))
    });
    fine.then(|| text.replace('_', ""))
}

/// A number with or without a fraction; `inf` and `nan` are some, too.
pub(super) fn number(text: &str) -> Option<f64> {
    ungrouped(text)?.parse().ok()
}

/// A whole number; one that is too large is the largest.
pub(super) fn whole(text: &str) -> Option<i64> {
    let value: i128 = ungrouped(text)?.parse().ok()?;
    Some(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// A duration in seconds; a number without a unit counts in units of `plain` seconds.
pub(super) fn duration(text: &str, plain: f64) -> Option<f64> {
    if let Some(number) = number(text) {
        return Some(number * plain);
    }
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !(character.is_ascii_digit() || matches!(character, '.' | '_')))
            .unwrap_or(rest.len());
        let count = number(&rest[..digits])?;
        rest = rest[digits..].trim_start();
        let (name, unit) = UNITS.iter().find(|(name, _)| {
            // `1m30s`: a unit ends where its letters end.
            rest.strip_prefix(name)
                .is_some_and(|after| !after.starts_with(char::is_alphabetic))
        })?;
        rest = rest[name.len()..].trim_start();
        sum += count * unit;
    }
    Some(sum)
}

/// A share: `0.1`, `10%`.
pub(super) fn share(text: &str) -> Option<f64> {
    match text.trim().strip_suffix('%') {
        Some(percent) => Some(number(percent)? / 100.0),
        None => number(text),
    }
}

/// A number of bytes: `1048576`, `256MiB`, `1 GiB`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim().to_lowercase();
    let (_, shift) = SIZES.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = ungrouped(digits)?.parse().ok()?;
    number.checked_mul(1 << shift)
}

/// A switch, in any of the words that people use.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// As the reference client reads a switch in the environment: what is none of its words is off.
pub fn python_bool(text: &str) -> bool {
    matches!(text.trim().to_lowercase().as_str(), "1" | "true" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("5", 5.0),
            ("0.25", 0.25),
            ("1_5", 15.0),
            ("5s", 5.0),
            ("2m", 120.0),
            ("2 min", 120.0),
            ("500ms", 0.5),
            ("1h30m", 5400.0),
            ("1d", 86_400.0),
            (" 1.5s ", 1.5),
        ] {
            assert_eq!(duration(text, 1.0), Some(seconds), "{text}");
        }
        assert_eq!(duration("250", 1e-3), Some(0.25));
        assert_eq!(duration("2s", 1e-3), Some(2.0));
        for wrong in [
            "",
            "s",
            "5x",
            "5 s s",
            "-5s",
            "1__0",
            "ten",
            "5 minutesx",
            "5s3",
        ] {
            assert_eq!(duration(wrong, 1.0), None, "{wrong}");
        }
    }

    #[test]
    fn shares_sizes_and_switches() {
        assert_eq!(share("10%"), Some(0.1));
        assert_eq!(share("0.5 "), Some(0.5));
        assert_eq!(share("%"), None);
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        assert_eq!(bytes(" 64 mib"), Some(64 << 20));
        assert_eq!(bytes("1_000"), Some(1000));
        for wrong in ["99999999999G", "12 apples", "", "-1", "1.5M"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(whole("99999999999999999999"), Some(i64::MAX));
        assert_eq!(
            (switch("On"), switch("no"), switch("2")),
            (Some(true), Some(false), None)
        );
        // Its words alone.
        assert!(python_bool(" YES") && !python_bool("on"));
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(text in "\\PC{0,12}") {
            let _ = (duration(&text, 1.0), share(&text), bytes(&text), whole(&text), switch(&text));
        }
    }
}

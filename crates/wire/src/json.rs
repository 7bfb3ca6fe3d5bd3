//! JSON as Python's `json.dumps(…, separators=(",", ":"))` writes it: only ASCII, and numbers as
//! Python's `repr` has them. Written by hand because it runs for every span, and because no library
//! writes floats that way.

use std::{format, io::Write as _, string::String, vec::Vec};

use super::{Fields, Value};

/// Writes a string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (place, character) in text.char_indices() {
        if matches!(character, ' '..='~') && character != '"' && character != '\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..place]);
        written = place + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// Writes a string or null.
pub(crate) fn maybe_text(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Writes a whole number.
pub(crate) fn whole(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    let _ = write!(out, "{number}");
}

/// Writes a finite float as Python's `repr` does.
pub(crate) fn float(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    // The usual case, a duration: no exponent, few digits.
    let size = number.abs();
    if number == 0.0 || (1e-4..1e15).contains(&size) {
        let start = out.len();
        let _ = write!(out, "{number}");
        let digits = out[start..]
            .iter()
            .filter(|byte| byte.is_ascii_digit())
            .count();
        if digits < 15 {
            if !out[start..].contains(&b'.') {
                out.extend_from_slice(b".0");
            }
            return;
        }
        out.truncate(start);
    }
    let shortest = format!("{number:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let count = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    // Where it takes so many digits, two texts can lie equally close: Python takes the even one, which
    // is what exact formatting to as many digits gives.
    let exact = format!("{number:.*e}", count(mantissa).saturating_sub(1));
    let same = exact.parse::<f64>().is_ok_and(|read| read == number);
    let (mantissa, exponent) = match exact.split_once('e') {
        Some(parts) if same => parts,
        _ => (mantissa, exponent),
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let negative = mantissa.starts_with('-');
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if negative {
        out.push(b'-');
    }
    let written = if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
    } else if exponent < 0 {
        format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize))
    } else {
        let before = exponent as usize + 1;
        if digits.len() <= before {
            format!("{digits}{}.0", "0".repeat(before - digits.len()))
        } else {
            let (whole, fraction) = digits.split_at(before);
            format!("{whole}.{fraction}")
        }
    };
    out.extend_from_slice(written.as_bytes());
}

/// Writes an object, or null where it is empty.
pub fn write_fields(out: &mut Vec<u8>, fields: &Fields) {
    if fields.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'{');
    for (place, (key, value)) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text(out, key);
        out.push(b':');
        match value {
            Value::Text(value) => text(out, value),
            Value::Whole(number) => whole(out, number),
            Value::Number(number) => float(out, *number),
            Value::Flag(flag) => whole(out, flag),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(number: f64) -> String {
        let mut out = Vec::new();
        float(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    /// Right-hand sides printed by Python 3.11.
    #[test]
    fn floats_are_pythons() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1.25, "1.25"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.1 + 0.2, "0.30000000000000004"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (6_625_728_246_169_170.0 / 8.0, "828216030771146.2"),
        ] {
            assert_eq!(written(number), text);
        }
    }

    #[test]
    fn text_is_ascii() {
        let mut out = Vec::new();
        text(&mut out, "a\"\\\n\u{1}\u{7f}é\u{1f600}/z");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#""a\"\\\n\u0001\u007f\u00e9\ud83d\ude00/z""#
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_number_comes_back(given in ".*", bits: u64) {
            let mut out = Vec::new();
            text(&mut out, &given);
            proptest::prop_assert!(out.is_ascii());
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), given);
            let number = f64::from_bits(bits);
            if number.is_finite() {
                proptest::prop_assert_eq!(written(number).parse::<f64>().unwrap(), number);
            }
        }
    }
}

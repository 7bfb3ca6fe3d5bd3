//! The live line, and how figures are written.

use std::{io::IsTerminal as _, time::Duration};

use crate::notes;

/// A duration for people: three digits and a unit.
pub fn duration(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        1_000_000_000..120_000_000_000 => (value / 1e9, "s"),
        _ => (value / 60e9, "min"),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 function`, `2 functions`, `1,200 batches`.
pub fn counted(count: u64, what: &str) -> String {
    let ending = match count {
        1 => "",
        _ if what.ends_with(['s', 'h']) => "es",
        _ => "s",
    };
    format!("{} {what}{ending}", grouped(count))
}

/// A line on stderr that is written over again and again, where stderr is a terminal.
pub struct StatusLine {
    on: bool,
    visible: bool,
    last_spans: u64,
}

impl StatusLine {
    /// Shows a line unless `quiet`, or stderr is no terminal.
    pub fn new(quiet: bool) -> Self {
        Self {
            on: !quiet && std::io::stderr().is_terminal(),
            visible: false,
            last_spans: 0,
        }
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if self.visible {
            notes::draw("\r\x1b[K");
            self.visible = false;
        }
    }

    /// Shows the state, once a second.
    pub fn show(&mut self, spans: u64, lost: u64, hidden: u64, since: Duration) {
        if !self.on {
            return;
        }
        let rate = (spans - self.last_spans) as f64 / since.as_secs_f64().max(0.001);
        self.last_spans = spans;
        let mut line = format!(
            "{} spans, {}/s, {} lost",
            grouped(spans),
            grouped(rate as u64),
            grouped(lost)
        );
        if hidden > 0 {
            line.push_str(&format!(", {} traces not shown", grouped(hidden)));
        }
        notes::draw(&format!("\r\x1b[K{line}"));
        self.visible = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (123_456, "123 µs"),
            (1_500_000, "1.50 ms"),
            (2_000_000_000, "2.00 s"),
            (600_000_000_000, "10.0 min"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}

//! The live line, and how figures are written.

use model::{notes, text::grouped};
use std::{io::IsTerminal as _, time::Duration};

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
            notes::draw(notes::FRESH_LINE);
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
        notes::draw(&format!("{}{line}", notes::FRESH_LINE));
        self.visible = true;
    }
}

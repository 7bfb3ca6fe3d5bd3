//! The agent's own log: for who debugs it, on standard error.

use model::{notes, text};

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Not the libraries' own: theirs could name what they carry.
        metadata.target().starts_with("teracron")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            notes::say(&format!("{}: {}", record.level(), text::shown(&line)));
        }
    }

    fn flush(&self) {}
}

/// From now on; with `debug` everything, errors otherwise.
pub(crate) fn start(debug: bool) {
    let _ = log::set_logger(&Log);
    log::set_max_level(if debug {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Error
    });
}

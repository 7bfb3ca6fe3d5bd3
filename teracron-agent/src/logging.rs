//! What `--debug` shows: the log of our own crates, among the notes.

use model::{notes, text};

struct StderrLog;

impl log::Log for StderrLog {
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

/// From now on errors are logged; everything where `debug`.
pub(crate) fn start_log(debug: bool) {
    let _ = log::set_logger(&StderrLog);
    log::set_max_level(if debug {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Error
    });
}

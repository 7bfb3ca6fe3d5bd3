//! Files whose programs move their own text into other memory, mostly to have it in huge pages.
//!
//! The breakpoints in the text are copied with it. The kernel knows a breakpoint by the file that is mapped
//! there, and after the move none is: whoever runs into the copy dies of SIGTRAP. So such a program is refused:
//! per process where the process moves its text or may do so, file-wide where its file has the means, for a
//! stranger may start it with the option tomorrow.
//!
//! What a file says of it is found here: functions that say so by name (`known`), and code that maps over itself
//! with system calls of its own (`code`). What a process was started with, and whether its text lies in its file
//! still, is looked at elsewhere. Go programs don't move; what a C library or dynamic linker maps is no program's text.

mod code;
mod known;

use serde::{Deserialize, Serialize};

use image::{
    Image,
    symbol::{Elf, Segment},
};
use model::text;

pub use known::{Mover, moves_by_loading};

/// What a file says of moving text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMoving {
    /// What in it moves text when it is asked to.
    pub mover: Option<Mover>,
    /// A library that it needs, and that moves the program's text.
    needs: Option<String>,
    /// Where its own code maps over code.
    replaces: Option<u64>,
    /// Its executable segments.
    pub text: Vec<Segment>,
}

impl FileMoving {
    /// Searches a file, its code included: up to 2 GiB of it.
    pub fn of(image: &Image, elf: &Elf) -> Self {
        let own = elf.go.is_none() && (image.is_main || !known::is_c_library(image.name()));
        let mut needed = elf.needed.iter();
        Self {
            mover: known::mover(image, elf),
            needs: needed.find(|name| moves_by_loading(name)).cloned(),
            replaces: own.then(|| code::replaces_text(&image.file, elf)).flatten(),
            text: elf
                .segments
                .iter()
                .filter(|segment| segment.executable)
                .copied()
                .collect(),
        }
    }

    /// Why programs of this file may move their text, however they are started: a sentence to be shown as it is,
    /// without its end. To be asked where breakpoints reach every process that has the file.
    pub fn whoever_starts_it(&self, image: &Image) -> Option<String> {
        let reason = match &self.mover {
            Some(Mover::Node) => Some(
                "Node.js copies its code into huge pages where it is started with --use-largepages"
                    .to_owned(),
            ),
            Some(Mover::Hhvm) => Some("HHVM copies its code into huge pages".to_owned()),
            Some(Mover::Php) => Some(
                "PHP copies its code into huge pages where opcache.huge_code_pages is set"
                    .to_owned(),
            ),
            Some(Mover::ClickHouse) => Some(
                "ClickHouse copies its code into huge pages where remap_executable is configured"
                    .to_owned(),
            ),
            Some(Mover::Named(function)) => Some(by_name(image, function)),
            None => None,
        };
        let loads = || {
            Some(format!(
                "{} needs {}, which moves the program's code into huge pages",
                text::shown(image.name()),
                text::shown(self.needs.as_ref()?)
            ))
        };
        reason.or_else(loads).or_else(|| self.by_code(image))
    }

    /// The same where its own code maps over code.
    pub fn by_code(&self, image: &Image) -> Option<String> {
        self.replaces.map(|address| {
            format!(
                "{} maps other memory over code with a system call of its own, at {address:#x}",
                text::shown(image.name())
            )
        })
    }
}

/// What to say of a function that says so by name.
pub fn by_name(image: &Image, function: &str) -> String {
    format!(
        "{} has a function that moves code into huge pages ({})",
        text::shown(image.name()),
        text::shown(function)
    )
}

#[cfg(test)]
mod tests;

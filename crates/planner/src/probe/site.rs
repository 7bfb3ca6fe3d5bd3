//! A breakpoint and what sits on it.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::Program;
use image::symbol::Place;

/// A place in a file, and what sits there. It is made from a [`Place`] alone, and can't be changed: so no breakpoint
/// is set where the probed file itself does not prove an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    on: OnPlace,
    place: Place,
}

/// What a site says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OnPlace {
    /// The program.
    pub program: Program,
    /// Offset in the file.
    pub offset: u64,
    /// What the program finds in its attach cookie.
    pub cookie: u64,
}

impl Site {
    /// Puts a program on a place.
    pub fn new(program: Program, place: Place, cookie: u64) -> Self {
        Self {
            on: OnPlace {
                program,
                offset: place.offset(),
                cookie,
            },
            place,
        }
    }

    /// The same place with another program.
    pub fn with(self, program: Program) -> Self {
        Self::new(program, self.place, self.cookie)
    }

    /// The instruction there, when it was decoded.
    pub fn instruction(&self) -> &[u8] {
        self.place.instruction()
    }
}

impl Deref for Site {
    type Target = OnPlace;

    fn deref(&self) -> &OnPlace {
        &self.on
    }
}

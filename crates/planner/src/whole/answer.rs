//! What a plan is.

use serde::{Deserialize, Serialize};

use crate::{
    layout::LayoutPlan,
    moving::FileMoving,
    probe::{ProbeTable, Site},
};
use image::{FileKey, Image, ImageFacts};

/// What is attached in one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileSites {
    /// The file.
    pub image: ImageFacts,
    /// In the order of attachment.
    pub sites: Vec<Site>,
}

impl FileSites {
    pub(super) fn new(image: &Image, sites: Vec<Site>) -> Self {
        Self {
            image: image.into(),
            sites,
        }
    }
}

/// A set of probes, ready to be attached.
#[derive(Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Names and capture plans.
    pub table: ProbeTable,
    /// Sites of the probes.
    pub plans: Vec<FileSites>,
    /// Sites in unwinders and runtimes.
    pub unwinders: Vec<FileSites>,
    /// What the kernel side keeps of processes by address, as far as their files say it.
    pub layouts: LayoutPlan,
    /// The files that a process of each of the request's programs would map, the program first.
    pub executables: Vec<Vec<ImageFacts>>,
    /// What files say of moving text, as far as it was asked for.
    pub moving: Vec<(FileKey, FileMoving)>,
    /// The plan, line by line, where that was asked for.
    pub explained: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What to say of files that cost too much to be read.
    pub refused: Vec<String>,
}

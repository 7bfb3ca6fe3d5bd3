//! The files of a request, as images.

use super::{Files, Request};
use crate::probe::Reached;
use image::{DebugPlaces, Image, ImageFacts, needed_images};

/// Images of the processes, then of the programs.
pub(super) struct Known {
    groups: Vec<Vec<Image>>,
    /// How many of these are of processes.
    processes: usize,
    /// Unwinders that would be loaded.
    later: Vec<Image>,
}

impl Known {
    /// What has no open file is left out.
    pub(super) fn of(request: &Request, files: &Files) -> Self {
        let image = |facts: &ImageFacts| {
            let debug = DebugPlaces::decided(facts.debug);
            Some(facts.image(files.get(&facts.key)?.clone(), debug))
        };
        let mut groups: Vec<Vec<Image>> = request
            .processes
            .iter()
            .map(|process| process.images.iter().filter_map(image).collect())
            .collect();
        let processes = groups.len();
        groups.extend(request.executables.iter().map(|facts| {
            let main = image(facts);
            let mut images: Vec<Image> = main.iter().flat_map(needed_images).collect();
            images.splice(0..0, main);
            images
        }));
        let unwinders = request.processes.iter();
        Self {
            groups,
            processes,
            later: unwinders
                .filter_map(|process| process.unwinder.as_ref().and_then(image))
                .collect(),
        }
    }

    /// Process by process, then program by program.
    pub(super) fn groups(&self) -> &[Vec<Image>] {
        &self.groups
    }

    /// All of them, then the unwinders that would be loaded.
    pub(super) fn with_unwinders(&self) -> impl Iterator<Item = &Image> {
        self.groups.iter().flatten().chain(&self.later)
    }

    /// What probes reach.
    pub(super) fn reached<'a>(
        &'a self,
        request: &'a Request,
    ) -> impl Iterator<Item = Reached<'a>> + 'a {
        let facts = request.processes.iter().map(|process| Some(&process.facts));
        self.groups
            .iter()
            .zip(facts.chain(std::iter::repeat(None)))
            .map(|(images, process)| Reached {
                process,
                images: images.iter().collect(),
            })
    }

    /// What a process of each program would map.
    pub(super) fn executables(&self) -> Vec<Vec<ImageFacts>> {
        let programs = self.groups.get(self.processes..).unwrap_or_default();
        programs
            .iter()
            .map(|images| images.iter().map(ImageFacts::from).collect())
            .collect()
    }
}

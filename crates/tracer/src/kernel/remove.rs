//! Taking the probes out of one file, while those of others stay.

use std::collections::HashSet;

use super::{
    Session, background,
    links::{self, Attached},
};
use image::FileKey;

impl Session {
    /// Takes all probes out of a file, for every process, and lets none in again: they may have done harm.
    /// Calls that are open there get no end from then on. Answers whether there were any.
    ///
    /// The kernel takes a while, so it happens in a thread, and in one of its own: this must not wait behind others.
    pub fn remove_file(&mut self, key: FileKey) -> bool {
        self.removed.insert(key);
        let gone = self.take_where(|attached| attached.key == key);
        let any = !gone.is_empty();
        if any {
            background::detaching("teracron-remove", move || links::detach(gone));
        }
        any
    }

    /// Files that no probe is put into any more.
    pub fn removed(&self) -> &HashSet<FileKey> {
        &self.removed
    }

    /// Detaches what a set of probes has in such files; answers the rest.
    pub(super) fn without_removed(&self, attached: Vec<Attached>) -> Vec<Attached> {
        let (gone, rest): (Vec<_>, Vec<_>) = attached
            .into_iter()
            .partition(|attached| self.removed.contains(&attached.key));
        links::detach(gone);
        rest
    }
}

//! What is known of files that move text: searching one's code takes long, and files are planned for again and again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use image::FileKey;
use planner::moving::FileMoving;

/// Files that are kept.
const MAX_KEPT: usize = 4096;

static KNOWN: Mutex<Option<HashMap<FileKey, FileMoving>>> = Mutex::new(None);

/// Files that need not be searched again. Where there are too many, all are forgotten, and found again by the plan that
/// is asked for now.
pub(super) fn known() -> HashSet<FileKey> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if known.len() > MAX_KEPT {
        known.clear();
    }
    known.keys().copied().collect()
}

/// What is known of all of them.
pub(super) fn all() -> HashMap<FileKey, FileMoving> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.clone().unwrap_or_default()
}

/// Takes what was found.
pub(super) fn keep(found: Vec<(FileKey, FileMoving)>) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().extend(found);
}

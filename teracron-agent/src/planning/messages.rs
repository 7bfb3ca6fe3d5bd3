//! What the agent and the process that plans tell each other.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::listing::Listing;
use image::{
    FileKey,
    foreign::{Owner, RootId},
};
use model::error::Error;
use planner::whole::{Planned, Request};

/// To the process that plans.
#[derive(Serialize, Deserialize)]
pub(super) enum Order {
    /// Files that come along, in this order; more are to follow, or the work.
    Files(Vec<FileKey>),
    /// A set of probes is to be planned.
    Plan(Box<Request>),
    /// Functions are to be listed on standard output.
    List(Box<Listing>),
    /// A file that was asked for comes along, or the error's number.
    Opened(Result<(), i32>),
}

/// From the process that plans.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// A file of this path is being read; for what to say where that is the last thing heard.
    Reading(FileKey),
    /// A debug file is asked for, or a library.
    Open(Wanted),
    /// The plan, or why there is none.
    Planned(Result<Box<Planned>, Error>),
    /// The list was written, with what there is to say of files; or why not.
    Listed(Result<Vec<String>, Error>),
}

/// A file that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Below which root.
    pub root: RootId,
    path: Vec<u8>,
    /// Beside whose files it is believed.
    pub owner: Option<Owner>,
}

impl Wanted {
    pub(super) fn new(root: RootId, path: PathBuf, owner: Option<Owner>) -> Self {
        Self {
            root,
            path: path.into_os_string().into_vec(),
            owner,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        OsString::from_vec(self.path.clone()).into()
    }
}

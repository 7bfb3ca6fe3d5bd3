//! What is in force: flags win over the environment, the environment over the file, the file over
//! what was stored by `login`.
//!
//! [`table`] has a row for each setting; everything else reads it.

mod account;
mod args;
mod credentials;
mod domain;
mod entries;
mod environment;
mod file;
mod kinds;
mod layers;
mod numbers;
pub mod process_id;
mod setting;
mod settings;
pub mod table;
mod targets;
mod units;

/// Where the sockets for `status` are, unless something else is said.
pub const RUN_FOLDER: &str = "/run/teracron";

pub use account::{Account, AccountSettings};
pub use args::{AccountArgs, Given, RunArgs};
pub use credentials::{
    Credentials, load as load_credentials, path as credentials_path, save as save_credentials,
    wipe as wipe_credentials,
};
pub use domain::{checked as checked_domain, is_allowed, sanitise};
pub use environment::Environment;
pub use file::ConfigFile;
pub use layers::Shown;
pub use setting::{About, Flag, Part, Row, Wrong};
pub use settings::{Flags, Settings};
pub use table::is_reloadable;
pub use targets::Targets;
pub use units::python_bool;

#[cfg(test)]
mod tests;

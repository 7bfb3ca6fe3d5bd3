//! What is in force: flags win over the environment, the environment over the file, the file over
//! what was stored by `login`.

mod args;
mod credentials;
mod domain;
mod file;
mod layers;
mod settings;

pub use args::{AccountArgs, EXTRA, RunArgs, ShipArgs};
pub use credentials::{
    Credentials, load as load_credentials, path as credentials_path, save as save_credentials,
    wipe as wipe_credentials,
};
pub use domain::{checked as checked_domain, is_allowed, sanitise};
pub use file::{ConfigFile, DEFAULT as DEFAULT_FILE};
pub use layers::{Environment, Shown, python_bool};
pub use settings::{Account, AccountSettings, Flags, Settings, Targets};

#[cfg(test)]
mod tests;

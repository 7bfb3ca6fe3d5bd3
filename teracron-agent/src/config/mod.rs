//! What is in force: flags win over the environment, the environment over the file, the file over
//! what was stored by `login`.

mod api_key;
mod args;
mod credentials;
mod domain;
mod file;
mod layers;
mod settings;

pub use api_key::{Decoded, KeyError, check_slug, decode, mask, parse_public_key};
pub use args::{AccountArgs, ShipArgs};
pub use credentials::{
    Credentials, load as load_credentials, path as credentials_path, save as save_credentials,
    wipe as wipe_credentials,
};
pub use domain::{checked as checked_domain, is_allowed, sanitise};
pub use file::{ConfigFile, DEFAULT as DEFAULT_FILE};
pub use layers::{Environment, Shown, python_bool};
pub use settings::{Account, AccountSettings, Flags, ScrubSettings, Settings, Targets};

#[cfg(test)]
mod tests;

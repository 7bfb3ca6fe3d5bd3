//! `login`, `logout` and `whoami`: the stored API key, as every Teracron client stores it.
//!
//! As with the reference client, messages go to stderr and, with `--json`, data to stdout; nothing is
//! asked of the service.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::json;

use super::LoginArgs;
use crate::config::{
    AccountArgs, Credentials, Environment, checked_domain, credentials_path, load_credentials,
    python_bool, sanitise, save_credentials,
    table::{ALLOW_CUSTOM_DOMAIN, API_KEY, DOMAIN},
    wipe_credentials,
};
use model::{
    error::{Error, Result},
    text,
};
use pipeline::output::print_line;
use wire::api_key::{decode, mask, parse_public_key};

/// A key is never longer.
const MAX_KEY: u64 = 64 << 10;

fn home(environment: &Environment) -> Result<std::path::PathBuf> {
    credentials_path(environment).ok_or_else(|| {
        Error::Usage("HOME is not set: there is no place for credentials".to_owned())
    })
}

/// Where to, as the flag or the environment says it.
fn domain(account: &AccountArgs, environment: &Environment) -> Result<Option<String>> {
    let given = account.0.get(&DOMAIN)?;
    Ok(given.or_else(|| environment.text("TERACRON_DOMAIN").map(str::to_owned)))
}

/// Stores an API key.
///
/// # Errors
/// Where the key or the domain is none, or the file can't be written.
pub(super) fn login(
    args: &LoginArgs,
    account: &AccountArgs,
    json: bool,
    environment: &Environment,
) -> Result<()> {
    let of_environment = || environment.text("TERACRON_API_KEY").map(str::to_owned);
    let given = match args.key.clone() {
        Some(key) => Some(key),
        None => account
            .0
            .get(&API_KEY)?
            .or_else(|| of_environment().filter(|key| !key.trim().is_empty())),
    };
    let key = match given {
        Some(key) => key,
        None => ask()?,
    };
    let key = key.trim();
    let usage = |error: &dyn std::fmt::Display| Error::Usage(error.to_string());
    let decoded = decode(key).map_err(|error| usage(&error))?;
    parse_public_key(&decoded.public_key).map_err(|error| usage(&error))?;
    let given = domain(account, environment)?.unwrap_or_default();
    let custom = account.0.has(&ALLOW_CUSTOM_DOMAIN)
        || environment
            .text("TERACRON_ALLOW_CUSTOM_DOMAIN")
            .is_some_and(python_bool);
    let domain = checked_domain(&given, custom).map_err(|error| usage(&error))?;
    let path = home(environment)?;
    save_credentials(&path, &Credentials::new(key, &decoded.slug, &domain))?;
    if json {
        return print_json(&json!({
            "status": "authenticated",
            "project_slug": decoded.slug,
            "domain": domain,
            "api_key_masked": mask(key),
        }));
    }
    eprintln!(
        "teracron-agent: this machine sends for {} to {domain}; key {}, stored in {}",
        decoded.slug,
        mask(key),
        text::shown(&path.to_string_lossy())
    );
    Ok(())
}

/// Asks for the key, without showing what is typed.
fn ask() -> Result<String> {
    let mut input = io::stdin().lock();
    let hidden = input.is_terminal().then(Hidden::new).flatten();
    if hidden.is_some() {
        eprint!("API key (from the Teracron dashboard; it is not shown): ");
        let _ = io::stderr().flush();
    }
    let mut key = String::new();
    let read = io::BufRead::read_line(&mut io::Read::take(&mut input, MAX_KEY), &mut key);
    if hidden.is_some() {
        eprintln!();
    }
    match read {
        Ok(_) if !key.trim().is_empty() => Ok(key),
        Ok(_) => Err(Error::Usage(
            "no API key: give it to `login`, in TERACRON_API_KEY, or on standard input".to_owned(),
        )),
        Err(error) => Err(Error::Failed(format!("cannot read the API key: {error}"))),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn new() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Wipes the stored key.
///
/// # Errors
/// Where the file can't be removed.
pub(super) fn logout(json: bool, environment: &Environment) -> Result<()> {
    let deleted = wipe_credentials(&home(environment)?)?;
    if json {
        return print_json(&json!({"status": "logged_out", "deleted": deleted}));
    }
    eprintln!(
        "teracron-agent: {}",
        if deleted {
            "the stored API key is wiped"
        } else {
            "no API key was stored"
        }
    );
    Ok(())
}

/// Shows which key is in force.
///
/// # Errors
/// Where what is in force is no key, or none is.
pub(super) fn whoami(account: &AccountArgs, json: bool, environment: &Environment) -> Result<()> {
    let given = account.0.get(&API_KEY)?;
    let given = given.map(|key| (key, "flag", "--api-key".to_owned()));
    let given = given.or_else(|| {
        let key = environment.text("TERACRON_API_KEY")?;
        let source = "TERACRON_API_KEY".to_owned();
        (!key.trim().is_empty()).then(|| (key.to_owned(), "environment_variable", source))
    });
    let stored = match (&given, credentials_path(environment)) {
        (None, Some(path)) => load_credentials(&path)?.map(|found| (found, path)),
        _ => None,
    };
    let (key, source, shown_source, domain) = match (given, stored) {
        (Some((key, source, shown)), _) => (key, source, shown, None),
        (None, Some((found, path))) => (
            found.api_key,
            "credentials_file",
            path.display().to_string(),
            Some(found.domain),
        ),
        (None, None) => {
            if json {
                return print_json(&json!({"authenticated": false}));
            }
            eprintln!("teracron-agent: no API key: `teracron-agent login` stores one");
            return Ok(());
        }
    };
    let decoded = decode(&key).map_err(|error| Error::Usage(format!("{shown_source}: {error}")))?;
    let given = self::domain(account, environment)?;
    let domain = sanitise(&given.or(domain).unwrap_or_default());
    if json {
        return print_json(&json!({
            "authenticated": true,
            "source": source,
            "project_slug": decoded.slug,
            "domain": domain,
            "api_key_masked": mask(key.trim()),
        }));
    }
    eprintln!(
        "teracron-agent: {} at {}, key {} from {}",
        decoded.slug,
        text::shown(&domain),
        mask(key.trim()),
        text::shown(&shown_source)
    );
    Ok(())
}

fn print_json(value: &serde_json::Value) -> Result<()> {
    print_line(&text::json(&format!("{value:#}")))
}

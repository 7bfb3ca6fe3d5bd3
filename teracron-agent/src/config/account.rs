//! Whose data it is, and where it goes.

use std::time::Duration;

use super::{
    credentials, domain,
    kinds::Text,
    layers::{Layers, Picked, usage},
    setting::Setting,
    table::{ALLOW_CUSTOM_DOMAIN, API_KEY, CA_FILE, DOMAIN, PROJECT_SLUG, PUBLIC_KEY, TIMEOUT},
};
use model::error::{Error, Result};
use pipeline::ship::Endpoint;
use wire::{api_key, seal::PublicKey};

/// Whose data it is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name of the project.
    pub slug: String,
    /// Its public key, RSA-4096.
    pub public_key: PublicKey,
    /// The API key, where there is one: what a query is allowed by.
    pub token: Option<String>,
    /// Where it came from.
    pub source: String,
}

/// The part of the settings that every request needs.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// `None`: nothing is sent.
    pub account: Option<Account>,
    /// Where to.
    pub endpoint: Endpoint,
}

impl AccountSettings {
    pub(super) fn pick(layers: &mut Layers<'_>) -> Result<Self> {
        let token = layers
            .pick(&API_KEY)?
            .filter(|picked| !picked.value.trim().is_empty());
        let mut stored = None;
        // What was stored counts only where nothing else is said.
        let explicit = layers.account.has(&PROJECT_SLUG) || layers.account.has(&PUBLIC_KEY);
        if token.is_none()
            && !explicit
            && let Some(path) = credentials::path(layers.environment)
        {
            stored = match credentials::load(&path) {
                // Tracing needs no key; whose HOME this is has not shared it.
                Err(unusable) if unusable.is_denied() => {
                    let warning = format!("{unusable}: no stored key is used");
                    layers.warnings.push(warning);
                    None
                }
                found => found?.map(|found| (found, path.display().to_string())),
            };
        }
        let token = token.or_else(|| {
            stored.as_ref().map(|(found, path)| Picked {
                value: found.api_key.clone(),
                source: path.clone(),
            })
        });
        let account = account(layers, token)?;
        let given = match layers.pick(&DOMAIN)? {
            Some(picked) => picked,
            None => match stored {
                Some((found, source)) => Picked {
                    value: found.domain,
                    source,
                },
                None => Picked::default(String::new()),
            },
        };
        let allow = layers.take(&ALLOW_CUSTOM_DOMAIN)?;
        let host =
            domain::checked(&given.value, allow).map_err(|error| usage(&given.source, error))?;
        layers.show(&DOMAIN, &host, &given.source);
        let ca_file = layers.optional(&CA_FILE)?;
        let timeout = layers.take(&TIMEOUT)?;
        Ok(Self {
            account,
            endpoint: Endpoint {
                domain: host,
                ca_file,
                timeout: Duration::from_secs_f64(timeout),
            },
        })
    }
}

/// The project, of the token or of the older form; a part that is given as a flag overrides the token's, one in the
/// environment or the file only stands in for it.
fn account(layers: &mut Layers<'_>, token: Option<Picked<String>>) -> Result<Option<Account>> {
    let decoded = match &token {
        Some(picked) => {
            let decoded = api_key::decode(&picked.value);
            layers.show(&API_KEY, api_key::mask(&picked.value), &picked.source);
            Some(decoded.map_err(|error| usage(&picked.source, error))?)
        }
        None => {
            layers.show(&API_KEY, "none", "default");
            None
        }
    };
    let (slug, public_key) = decoded
        .map(|decoded| (decoded.slug, decoded.public_key))
        .unzip();
    let mut part = |setting: &Setting<Text>, of_token: Option<String>| {
        if !layers.account.has(setting)
            && let (Some(value), Some(token)) = (of_token, &token)
        {
            let source = token.source.clone();
            return Ok(Some(Picked { value, source }));
        }
        layers.pick(setting)
    };
    let (slug, key) = match (part(&PROJECT_SLUG, slug)?, part(&PUBLIC_KEY, public_key)?) {
        (Some(slug), Some(key)) => (slug, key),
        (None, None) => return Ok(None),
        (Some(found), None) | (None, Some(found)) => {
            return Err(Error::Usage(format!(
                "{}: a project needs both its name and its public key; an API key has both",
                found.source
            )));
        }
    };
    api_key::check_slug(&slug.value).map_err(|error| usage(&slug.source, error))?;
    let public_key =
        api_key::parse_public_key(&key.value).map_err(|error| usage(&key.source, error))?;
    layers.show(&PROJECT_SLUG, &slug.value, &slug.source);
    layers.show(&PUBLIC_KEY, "RSA-4096", &key.source);
    Ok(Some(Account {
        slug: slug.value,
        public_key,
        source: match &token {
            Some(token) => token.source.clone(),
            None => key.source,
        },
        token: token.map(|token| token.value),
    }))
}

//! One request: an envelope to the service, over TLS and nothing else.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use reqwest::{
    Certificate, Client, Url,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
    tls::Version,
};

use serde::{Deserialize, Serialize};

use super::answer::{Verdict, judge};
use crate::{own_files, spool::Entry};
use model::{
    Kind,
    error::{Error, Result},
    text,
};

/// The service, and how it is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host and port.
    pub domain: String,
    /// A private authority's certificates.
    pub ca_file: Option<PathBuf>,
    /// Longest time that one request may take.
    pub timeout: Duration,
}

impl Endpoint {
    /// What the file of certificates has, for whoever may not read it.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn certificates(&self) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.ca_file else {
            return Ok(None);
        };
        own_files::read_regular(path, MAX_CERTIFICATES)
            .map(Some)
            .map_err(|error| wrong_certificates(path, &error))
    }
}

fn wrong_certificates(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let shown = text::shown(&path.to_string_lossy());
    Error::Usage(format!("--ca-file {shown}: {error}"))
}

/// Bytes of a file with certificates: a whole system's has some 200 KiB.
const MAX_CERTIFICATES: u64 = 4 << 20;
/// Bytes of an answer that are looked at.
const MAX_ANSWER: usize = 4096;
/// The rest of an answer, after its head, is waited for this long.
const BODY: Duration = Duration::from_secs(1);
/// Idle connections are kept this long: longer than the usual flush interval.
const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// Connecting must leave time for the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends envelopes of one project.
#[derive(Clone)]
pub struct Courier {
    client: Client,
    slug: HeaderValue,
    /// By kind.
    urls: [(Kind, Url); 3],
}

impl Courier {
    /// For a project; `slug` is its name.
    ///
    /// # Errors
    /// Where certificates can't be read, or the domain is none.
    pub fn new(slug: &str, settings: &Endpoint, certificates: Option<&[u8]>) -> Result<Self> {
        // Fails where it is set already, by the courier of an earlier configuration: the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("teracron-agent/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .tls_version_min(Version::TLS_1_2)
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
            .timeout(settings.timeout)
            .pool_idle_timeout(KEEP_ALIVE);
        if let Some(pem) = certificates {
            let path = settings.ca_file.as_deref().unwrap_or(Path::new(""));
            let wrong = |error: &dyn std::fmt::Display| wrong_certificates(path, error);
            let certificates = Certificate::from_pem_bundle(pem).map_err(|error| wrong(&error))?;
            if certificates.is_empty() {
                return Err(wrong(&"no certificate in PEM in it"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| {
            Error::Failed(format!(
                "cannot prepare TLS: {}; is the package ca-certificates installed?",
                causes(&error)
            ))
        })?;
        let url = |kind: Kind| {
            Url::parse(&format!("https://{}{}", settings.domain, kind.path()))
                .map(|url| (kind, url))
                .map_err(|error| {
                    Error::Usage(format!("domain {}: {error}", text::shown(&settings.domain)))
                })
        };
        Ok(Self {
            client,
            slug: HeaderValue::from_str(slug)
                .map_err(|error| Error::Usage(format!("the project's name: {error}")))?,
            urls: [url(Kind::Metrics)?, url(Kind::Spans)?, url(Kind::Events)?],
        })
    }

    /// Sends an entry and judges the answer.
    pub async fn send(&self, entry: Entry) -> Verdict {
        let url = self.urls.iter().find(|(kind, _)| *kind == entry.kind);
        let Some((_, url)) = url else {
            return Verdict::Rejected {
                why: "of no known kind".to_owned(),
            };
        };
        let sent = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("X-Project-Slug", self.slug.clone())
            .body(entry.envelope)
            .send()
            .await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                return Verdict::Later {
                    why: causes(&error),
                    wait: None,
                };
            }
        };
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        // Read to its end, so that the connection can be used again; but no more than a little, and not for long:
        // the status has come, and says what became of the entry.
        let mut body = Vec::new();
        let read = async {
            while body.len() < MAX_ANSWER
                && let Ok(Some(chunk)) = response.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        let _ = tokio::time::timeout(BODY, read).await;
        body.truncate(MAX_ANSWER);
        judge(
            status,
            retry_after.as_deref(),
            &String::from_utf8_lossy(&body),
            SystemTime::now(),
        )
    }
}

/// An error with its causes: the outermost alone says little more than "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text::escape(&text, 400)
}

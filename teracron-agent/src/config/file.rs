//! The configuration file: TOML, every key known, every mistake with its line.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use model::{
    error::{Error, Result},
    text,
};
use pipeline::{output::OutputMode, own_files, scrub::RuleSettings};
use planner::{
    probe::ReturnProbeMode,
    probe_spec::{GoSpawn, InlinedCalls, ProbeOptions, ProbeSpec},
};

/// Where it is looked for unless `--config` says.
pub const DEFAULT: &str = "/etc/teracron/agent.toml";
/// A file larger than this is none of ours.
const MAX_BYTES: u64 = 4 << 20;

/// Contents of the file; names as in wire.md, without `TERACRON_` and in lower case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is explained where it is used, in `Settings`
pub struct ConfigFile {
    pub api_key: Option<String>,
    pub project_slug: Option<String>,
    pub public_key: Option<String>,
    pub domain: Option<String>,
    pub allow_custom_domain: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub interval: Option<f64>,
    pub max_buffer: Option<i64>,
    pub flush_deadline: Option<f64>,
    pub timeout: Option<f64>,
    pub debug: Option<bool>,
    pub target_pid: Option<u32>,
    pub tracing_enabled: Option<bool>,
    pub trace_batch_size: Option<i64>,
    pub trace_flush_interval: Option<f64>,
    pub trace_sample_rate: Option<f64>,
    pub trace_emit_events: Option<bool>,
    pub spool: Option<bool>,
    pub spool_dir: Option<PathBuf>,
    pub spool_max: Option<Size>,
    pub shutdown_timeout: Option<f64>,
    pub stats_interval: Option<f64>,
    pub run_dir: Option<PathBuf>,
    pub span_memory: Option<bool>,
    pub output: Option<OutputMode>,
    pub pid: Vec<u32>,
    pub exe: Vec<PathBuf>,
    pub follow: Option<bool>,
    pub all_processes: Option<bool>,
    pub return_probe: Option<ReturnProbeMode>,
    pub probe: Vec<Spanned<ProbeEntry>>,
    pub scrub: Vec<Spanned<RuleSettings>>,
    pub scrub_hash_key: Option<String>,
    pub scrubber: Option<Vec<String>>,
    pub scrubber_env: Vec<String>,
    pub scrubber_timeout: Option<f64>,
}

/// A probe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeEntry {
    workflow: Option<String>,
    function: String,
    module: Option<String>,
    #[serde(default)]
    capture: Vec<String>,
    fails: Option<String>,
    #[serde(default)]
    inlined: InlinedCalls,
    #[serde(default)]
    go_spawn: GoSpawn,
}

/// A number of bytes: `1048576`, `"256 MiB"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

impl ConfigFile {
    /// Reads a file, with the probes and rules checked; answers what is to be said of it, too.
    ///
    /// # Errors
    /// Where it can't be read, others can write to it, or something in it makes no sense; the message names the
    /// line.
    pub fn read(path: &Path) -> Result<(Self, Vec<ProbeSpec>, Option<String>)> {
        let shown = text::shown(&path.to_string_lossy());
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::Usage(format!("cannot read the configuration: {error}"))
        };
        let content = own_files::read(path, MAX_BYTES).map_err(|error| unreadable(&error))?;
        let text = Zeroizing::new(content.bytes);
        let text = std::str::from_utf8(&text).map_err(|error| unreadable(&error))?;
        let (file, probes) = Self::parse(text, &shown)?;
        let key = [
            ("api_key", file.api_key.is_some()),
            ("scrub_hash_key", file.scrub_hash_key.is_some()),
        ];
        let key = key.iter().find(|(_, is_there)| *is_there);
        let warning = key.filter(|_| content.others_read).map(|(name, _)| {
            format!("{shown} has {name} and can be read by others: chmod go-r {shown}")
        });
        Ok((file, probes, warning))
    }

    /// Parses what a file called `name` holds.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn parse(content: &str, name: &str) -> Result<(Self, Vec<ProbeSpec>)> {
        let at = |span: Option<Range<usize>>, what: &str| {
            let before = span.and_then(|span| content.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            Error::Usage(format!("{name}, line {line}: {what}"))
        };
        // The parser's message alone: its picture of the line could show a key.
        let file: Self =
            toml::from_str(content).map_err(|error| at(error.span(), error.message()))?;
        let mut probes = Vec::new();
        for probe in &file.probe {
            let entry = probe.get_ref();
            let spec = ProbeSpec::new(
                entry.workflow.as_deref(),
                &entry.function,
                entry.module.as_deref(),
            )
            .and_then(|spec| spec.reading(&entry.capture, entry.fails.as_deref()))
            .map_err(|error| at(Some(probe.span()), &error.to_string()))?;
            let options = ProbeOptions {
                inlined: entry.inlined,
                go_spawn: entry.go_spawn,
            };
            probes.push(spec.with(options));
        }
        for rule in &file.scrub {
            rule.get_ref()
                .check()
                .map_err(|error| at(Some(rule.span()), &error))?;
        }
        if file.scrubber.as_ref().is_some_and(Vec::is_empty) {
            return Err(at(None, "scrubber: the program is missing"));
        }
        for name in &file.scrubber_env {
            if name == "TERACRON_SCRUB_HASH_KEY" {
                return Err(at(None, "scrubber_env: no program gets the hash key"));
            }
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(at(None, "scrubber_env: names of variables are wanted"));
            }
        }
        Ok((file, probes))
    }
}

/// Reads a number of bytes: `1048576`, `256MiB`, `1 GiB`.
///
/// # Errors
/// Where it is none.
pub fn bytes(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match text[digits.len()..].trim().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("a number of bytes is wanted, like 256MiB".to_owned()),
    };
    digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number of bytes is wanted, like 256MiB".to_owned())
}

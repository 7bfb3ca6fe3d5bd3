//! Everything that is in force in a run.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    AccountArgs, ConfigFile, DEFAULT_FILE, Environment, RunArgs, Shown, credentials, domain, file,
    layers::{Layers, Picked},
};
use model::{
    error::{Error, Result},
    text,
};
use pipeline::{
    output::{ColorMode, OutputMode},
    scrub::{RuleSettings, ScrubSettings},
    ship::Endpoint,
};
use planner::{probe::ReturnProbeMode, probe_spec::ProbeSpec};
use wire::{api_key, seal::PublicKey};

/// Where sealed batches wait.
const SPOOL_DIR: &str = "/var/lib/teracron/spool";
/// Most bytes of them.
const SPOOL_MAX: u64 = 256 << 20;
/// The same where they wait in memory: an agent is to be small.
const SPOOL_MAX_MEMORY: u64 = 16 << 20;
/// Milliseconds that an external scrubber has for one answer.
const SCRUBBER_TIMEOUT: f64 = 100.0;

/// The flags of a run.
pub struct Flags<'a> {
    /// Whose data it is.
    pub account: &'a AccountArgs,
    /// What is traced, and how much is sent.
    pub run: &'a RunArgs,
    /// `--json`.
    pub json: bool,
}

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

/// What is traced, and how.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Executables.
    pub executables: Vec<PathBuf>,
    /// Children are traced too.
    pub follow: bool,
    /// Breakpoints in the programs' files reach every process that runs them (`--all-processes`).
    pub all_processes: bool,
    /// Probes; none where tracing is switched off.
    pub probes: Vec<ProbeSpec>,
    /// How ends are seen.
    pub return_probe: ReturnProbeMode,
    /// `--allow-unsafe-return-probes`.
    pub allow_unsafe: bool,
    /// Spans carry what they did to the process's memory.
    pub span_memory: bool,
    /// Share of traces that are kept.
    pub sample_rate: f64,
}

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Account.
    pub account: AccountSettings,
    /// Targets and probes.
    pub targets: Targets,
    /// Scrubbing.
    pub scrub: ScrubSettings,
    /// Between memory samples.
    pub interval: Duration,
    /// Memory samples per flush.
    pub max_buffer: usize,
    /// Longest wait of a sample.
    pub flush_deadline: Duration,
    /// Spans per flush.
    pub batch_size: usize,
    /// Between flushes of spans.
    pub flush_interval: Duration,
    /// Workflow events are sent too.
    pub emit_events: bool,
    /// Folder of the spool; `None` keeps it in memory.
    pub spool_dir: Option<PathBuf>,
    /// Most bytes in the spool.
    pub spool_max: u64,
    /// For the last flush.
    pub shutdown_timeout: Duration,
    /// Between reports of what became of everything.
    pub stats_interval: Option<Duration>,
    /// Folder of the status socket.
    pub run_dir: PathBuf,
    /// How spans are shown.
    pub output: OutputMode,
    /// Whether colours are used.
    pub color: ColorMode,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Say only errors.
    pub quiet: bool,
    /// Say everything.
    pub debug: bool,
    /// What is in force, for people.
    pub shown: Vec<Shown>,
    /// What was changed or passed over.
    pub warnings: Vec<String>,
}

impl Targets {
    /// Whether no process is named.
    pub fn names_nothing(&self) -> bool {
        self.pids.is_empty() && self.executables.is_empty()
    }
}

impl AccountSettings {
    fn pick(args: &AccountArgs, file: &ConfigFile, layers: &mut Layers<'_>) -> Result<Self> {
        let some = |text: &str| Some(text.to_owned());
        let token = layers
            .pick("api_key", args.api_key.clone(), some, file.api_key.clone())
            .filter(|picked| !picked.value.trim().is_empty());
        let mut stored = None;
        // What was stored counts only where nothing else is said.
        let explicit = args.project_slug.is_some() || args.public_key.is_some();
        if token.is_none()
            && !explicit
            && let Some(path) = credentials::path(layers.environment)
        {
            stored = credentials::load(&path)?.map(|found| (found, path.display().to_string()));
        }
        let token = token.or_else(|| {
            stored.as_ref().map(|(found, path)| Picked {
                value: found.api_key.clone(),
                source: path.clone(),
            })
        });
        let decoded = token
            .as_ref()
            .map(|picked| {
                api_key::decode(&picked.value)
                    .map_err(|error| Error::Usage(format!("{}: {error}", picked.source)))
            })
            .transpose()?;
        match &token {
            Some(picked) => layers.show("api_key", api_key::mask(&picked.value), &picked.source),
            None => layers.show("api_key", "none", "default"),
        }
        // The older form; a part that is given as a flag overrides the token's, one in the
        // environment only stands in for it.
        let mut part = |name: &'static str,
                        flag: &Option<String>,
                        file: &Option<String>,
                        of: Option<String>| {
            if let (None, Some(value), Some(token)) = (flag, &of, &token) {
                return Some(Picked {
                    value: value.clone(),
                    source: token.source.clone(),
                });
            }
            layers.pick(name, flag.clone(), some, file.clone())
        };
        let slug = part(
            "project_slug",
            &args.project_slug,
            &file.project_slug,
            decoded.as_ref().map(|decoded| decoded.slug.clone()),
        );
        let public_key = part(
            "public_key",
            &args.public_key,
            &file.public_key,
            decoded.map(|decoded| decoded.public_key),
        );
        let account = match (slug, public_key) {
            (Some(slug), Some(key)) => {
                let named = |source: &str, error: api_key::KeyError| {
                    Error::Usage(format!("{source}: {error}"))
                };
                api_key::check_slug(&slug.value).map_err(|error| named(&slug.source, error))?;
                let public_key = api_key::parse_public_key(&key.value)
                    .map_err(|error| named(&key.source, error))?;
                layers.show("project_slug", &slug.value, &slug.source);
                layers.show("public_key", "RSA-4096", &key.source);
                Some(Account {
                    slug: slug.value,
                    public_key,
                    source: token
                        .as_ref()
                        .map_or(key.source, |token| token.source.clone()),
                    token: token.map(|token| token.value),
                })
            }
            (None, None) => None,
            (Some(found), None) | (None, Some(found)) => {
                return Err(Error::Usage(format!(
                    "{}: a project needs both its name and its public key; an API key has both",
                    found.source
                )));
            }
        };
        let given = layers
            .pick("domain", args.domain.clone(), some, file.domain.clone())
            .or_else(|| {
                stored.map(|(found, path)| Picked {
                    value: found.domain,
                    source: path,
                })
            })
            .unwrap_or(Picked {
                value: String::new(),
                source: "default".to_owned(),
            });
        let allow = layers.switch(
            "allow_custom_domain",
            args.allow_custom_domain.then_some(true),
            file.allow_custom_domain,
            false,
        );
        let host = domain::checked(&given.value, allow)
            .map_err(|error| Error::Usage(format!("{}: {error}", given.source)))?;
        layers.show("domain", &host, &given.source);
        let ca_file = layers.pick(
            "ca_file",
            args.ca_file.clone(),
            |text| Some(PathBuf::from(text)),
            file.ca_file.clone(),
        );
        if let Some(picked) = &ca_file {
            layers.show("ca_file", picked.value.display(), &picked.source);
        }
        let timeout = layers.number("timeout", args.timeout, file.timeout, 10.0, (2.0, 30.0));
        Ok(Self {
            account,
            endpoint: Endpoint {
                domain: host,
                ca_file: ca_file.map(|picked| picked.value),
                timeout: Duration::from_secs_f64(timeout),
            },
        })
    }
}

/// The file, its probes, its name, and what is to be said of it.
fn read_file(args: &AccountArgs) -> Result<(ConfigFile, Vec<ProbeSpec>, String, Option<String>)> {
    let path = match &args.config {
        Some(path) => path.as_path(),
        None => {
            let default = Path::new(DEFAULT_FILE);
            if !default.exists() {
                return Ok((ConfigFile::default(), Vec::new(), String::new(), None));
            }
            default
        }
    };
    let (file, probes, warning) = ConfigFile::read(path)?;
    Ok((file, probes, path.display().to_string(), warning))
}

impl Settings {
    /// Puts the layers together.
    ///
    /// # Errors
    /// Where something can't be read at all.
    pub fn resolve(args: &Flags<'_>, environment: &Environment<'_>) -> Result<Self> {
        let (file, file_probes, name, warning) = read_file(args.account)?;
        let mut layers = Layers {
            environment,
            file: name,
            shown: Vec::new(),
            warnings: warning.into_iter().collect(),
        };
        let account = AccountSettings::pick(args.account, &file, &mut layers)?;
        let ship = &args.run.ship;
        let seconds = Duration::from_secs_f64;
        let interval = layers.number("interval", ship.interval, file.interval, 10.0, (5.0, 300.0));
        let max_buffer = layers.whole(
            "max_buffer",
            ship.max_buffer,
            file.max_buffer,
            10,
            (1, 10_000),
        );
        let flush_deadline = layers.number(
            "flush_deadline",
            ship.flush_deadline,
            file.flush_deadline,
            60.0,
            (10.0, 600.0),
        );
        let debug = layers.switch("debug", args.run.debug.then_some(true), file.debug, false);
        let batch_size = layers.whole(
            "trace_batch_size",
            ship.trace_batch_size,
            file.trace_batch_size,
            100,
            (1, 10_000),
        );
        let flush_interval = layers.number(
            "trace_flush_interval",
            ship.trace_flush_interval,
            file.trace_flush_interval,
            10.0,
            (1.0, 300.0),
        );
        let emit_events = layers.switch(
            "trace_emit_events",
            ship.trace_emit_events,
            file.trace_emit_events,
            false,
        );
        let shutdown_timeout = layers.number(
            "shutdown_timeout",
            ship.shutdown_timeout,
            file.shutdown_timeout,
            10.0,
            (0.0, 600.0),
        );
        let stats_interval = layers.number(
            "stats_interval",
            ship.stats_interval,
            file.stats_interval,
            0.0,
            (0.0, 86_400.0),
        );
        let (spool_dir, spool_max) = spool(args, &file, &mut layers)?;
        let targets = targets(args, &file, file_probes, &mut layers)?;
        let scrub = scrub(&file, &mut layers)?;
        let run_dir = layers.path(
            "run_dir",
            ship.run_dir.clone(),
            file.run_dir.clone(),
            crate::status::FOLDER,
        );
        let output = layers.choice(
            "output",
            args.run.output.or(args.json.then_some(OutputMode::Json)),
            file.output,
            if account.account.is_some() {
                OutputMode::None
            } else {
                OutputMode::Console
            },
        );
        Ok(Self {
            account,
            targets,
            scrub,
            interval: seconds(interval),
            max_buffer,
            flush_deadline: seconds(flush_deadline),
            batch_size,
            flush_interval: seconds(flush_interval),
            emit_events,
            spool_dir,
            spool_max,
            shutdown_timeout: seconds(shutdown_timeout),
            stats_interval: (stats_interval > 0.0).then(|| seconds(stats_interval)),
            output,
            run_dir,
            color: args.run.color.unwrap_or(ColorMode::Auto),
            duration: args
                .run
                .duration
                .map(|duration| Duration::try_from_secs_f64(duration).unwrap_or(Duration::MAX)),
            quiet: args.run.quiet,
            debug,
            shown: layers.shown,
            warnings: layers.warnings,
        })
    }
}

fn spool(
    args: &Flags<'_>,
    file: &ConfigFile,
    layers: &mut Layers<'_>,
) -> Result<(Option<PathBuf>, u64)> {
    let ship = &args.run.ship;
    let on = layers.switch(
        "spool",
        if ship.no_spool {
            Some(false)
        } else {
            ship.spool_dir.as_ref().map(|_| true)
        },
        file.spool,
        true,
    );
    let dir = layers.path(
        "spool_dir",
        ship.spool_dir.clone(),
        file.spool_dir.clone(),
        SPOOL_DIR,
    );
    let in_file = match &file.spool_max {
        Some(file::Size::Bytes(bytes)) => Some(*bytes),
        Some(file::Size::Text(text)) => {
            let source = layers.file.clone();
            Some(
                file::bytes(text)
                    .map_err(|error| Error::Usage(format!("{source}: spool_max: {error}")))?,
            )
        }
        None => None,
    };
    let max = layers
        .pick(
            "spool_max",
            ship.spool_max,
            |text| file::bytes(text).ok(),
            in_file,
        )
        .unwrap_or(Picked {
            value: if on { SPOOL_MAX } else { SPOOL_MAX_MEMORY },
            source: "default".to_owned(),
        });
    layers.show("spool_max", max.value, &max.source);
    Ok((on.then_some(dir), max.value))
}

fn targets(
    args: &Flags<'_>,
    file: &ConfigFile,
    file_probes: Vec<ProbeSpec>,
    layers: &mut Layers<'_>,
) -> Result<Targets> {
    let ship = &args.run.ship;
    // Targets of one layer, not a mixture: a flag means exactly this process.
    let flags = !args.run.pid.is_empty() || !args.run.exe.is_empty();
    let (mut pids, executables) = if flags {
        (args.run.pid.clone(), args.run.exe.clone())
    } else {
        (file.pid.clone(), file.exe.clone())
    };
    let one = layers.pick(
        "target_pid",
        None,
        |text| text.trim().parse().ok(),
        file.target_pid,
    );
    if let Some(picked) = one
        && !flags
    {
        layers.show("target_pid", picked.value, &picked.source);
        pids.push(picked.value);
    }
    let from = if flags { "flags" } else { &layers.file.clone() };
    for pid in &pids {
        layers.show("pid", pid, from);
    }
    for path in &executables {
        layers.show("exe", path.display(), from);
    }
    let follow = layers.switch(
        "follow",
        args.run.no_follow.then_some(false),
        file.follow,
        true,
    );
    let all_processes = layers.switch(
        "all_processes",
        args.run.all_processes.then_some(true),
        file.all_processes,
        false,
    );
    let return_probe = layers.choice(
        "return_probe",
        args.run.return_probe,
        file.return_probe,
        ReturnProbeMode::Auto,
    );
    let tracing = layers.switch(
        "tracing_enabled",
        ship.tracing_enabled,
        file.tracing_enabled,
        true,
    );
    let sample_rate = layers.number(
        "trace_sample_rate",
        ship.trace_sample_rate,
        file.trace_sample_rate,
        1.0,
        (0.0, 1.0),
    );
    let span_memory = layers.switch(
        "span_memory",
        ship.no_span_memory.then_some(false),
        file.span_memory,
        true,
    );
    let mut probes = file_probes;
    if !args.run.probe.is_empty() {
        probes = args
            .run
            .probe
            .iter()
            .map(|probe| {
                probe
                    .parse()
                    .map_err(|error| Error::Usage(format!("--probe: {error}")))
            })
            .collect::<Result<_>>()?;
    }
    let from = if args.run.probe.is_empty() {
        layers.file.clone()
    } else {
        "--probe".to_owned()
    };
    for probe in &probes {
        layers.show("probe", probe, &from);
    }
    if !tracing {
        probes.clear();
    }
    Ok(Targets {
        pids,
        executables,
        follow,
        all_processes,
        probes,
        return_probe,
        allow_unsafe: args.run.allow_unsafe_return_probes,
        span_memory,
        sample_rate,
    })
}

fn scrub(file: &ConfigFile, layers: &mut Layers<'_>) -> Result<ScrubSettings> {
    let hash_key = layers.pick(
        "scrub_hash_key",
        None,
        |text| Some(text.to_owned()),
        file.scrub_hash_key.clone(),
    );
    if let Some(picked) = &hash_key {
        layers.show("scrub_hash_key", "****", &picked.source);
    }
    let source = layers.file.clone();
    for rule in &file.scrub {
        layers.show("scrub", rule.get_ref(), &source);
    }
    if let Some(program) = &file.scrubber {
        layers.show("scrubber", text::shown(&program.join(" ")), &source);
        let variables = file.scrubber_env.join(" ");
        layers.show("scrubber_env", text::shown(&variables), &source);
    }
    let timeout = layers.number(
        "scrubber_timeout",
        None,
        file.scrubber_timeout,
        SCRUBBER_TIMEOUT,
        (1.0, 10_000.0),
    );
    let settings = ScrubSettings {
        rules: file
            .scrub
            .iter()
            .map(|rule| rule.get_ref().clone())
            .collect(),
        hash_key: hash_key.map(|picked| Zeroizing::new(picked.value)),
        program: file.scrubber.clone(),
        variables: file.scrubber_env.clone(),
        timeout: Duration::from_secs_f64(timeout / 1000.0),
    };
    if settings.hash_key.is_none() && settings.rules.iter().any(RuleSettings::needs_key) {
        return Err(Error::Usage(format!(
            "{source}: a hash rule needs scrub_hash_key, or TERACRON_SCRUB_HASH_KEY"
        )));
    }
    pipeline::scrub::Rules::new(&settings)
        .map_err(|error| Error::Usage(format!("{source}: {error}")))?;
    Ok(settings)
}

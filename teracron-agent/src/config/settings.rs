//! Everything that is in force in a run.

use std::{path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::{
    AccountArgs, AccountSettings, ConfigFile, Environment, RunArgs, Shown, Targets,
    entries::Checked,
    layers::{Layers, Picked, usage},
    table::*,
};
use model::error::Result;
use pipeline::{
    output::{ColorMode, OutputMode},
    scrub::{RuleSettings, ScrubSettings},
};

/// Most bytes of sealed batches that wait on disk.
const SPOOL_MAX_DISK: u64 = 256 << 20;
/// The same where they wait in memory: an agent is to be small.
const SPOOL_MAX_MEMORY: u64 = 16 << 20;

/// The flags of a run.
pub struct Flags<'a> {
    /// Whose data it is.
    pub account: &'a AccountArgs,
    /// What is traced, and how much is sent.
    pub run: &'a RunArgs,
    /// `--json`.
    pub json: bool,
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
    /// What is shown is not scrubbed.
    pub unscrubbed: bool,
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

impl Settings {
    /// Puts the layers together.
    ///
    /// # Errors
    /// Where something can't be read at all, or a flag makes no sense.
    pub fn resolve(flags: &Flags<'_>, environment: &Environment) -> Result<Self> {
        let (file, warning) = ConfigFile::read(flags.account.0.get(&CONFIG)?)?;
        let mut layers = Layers {
            account: &flags.account.0,
            run: &flags.run.0,
            environment,
            file: &file,
            shown: Vec::new(),
            warnings: warning.into_iter().chain(environment.strangers()).collect(),
        };
        let layers = &mut layers;
        let account = AccountSettings::pick(layers)?;
        let seconds = Duration::from_secs_f64;
        let usual_output = match (flags.json, &account.account) {
            (true, _) => Picked {
                value: OutputMode::Json,
                source: "--json".to_owned(),
            },
            (false, Some(_)) => Picked::default(OutputMode::None),
            (false, None) => Picked::default(OutputMode::Console),
        };
        // `--json` is a flag, too: it wins over the other layers.
        let output = match layers.flag(&OUTPUT)? {
            None if flags.json => usual_output,
            _ => layers.pick(&OUTPUT)?.unwrap_or(usual_output),
        };
        let stats_interval = layers.take(&STATS_INTERVAL)?;
        let (spool_dir, spool_max) = spool(layers)?;
        Ok(Self {
            targets: targets(layers)?,
            scrub: scrub(layers)?,
            interval: seconds(layers.take(&INTERVAL)?),
            max_buffer: count(layers.take(&MAX_BUFFER)?),
            flush_deadline: seconds(layers.take(&FLUSH_DEADLINE)?),
            batch_size: count(layers.take(&TRACE_BATCH_SIZE)?),
            flush_interval: seconds(layers.take(&TRACE_FLUSH_INTERVAL)?),
            emit_events: layers.take(&TRACE_EMIT_EVENTS)?,
            spool_dir,
            spool_max,
            shutdown_timeout: seconds(layers.take(&SHUTDOWN_TIMEOUT)?),
            stats_interval: (stats_interval > 0.0).then(|| seconds(stats_interval)),
            run_dir: layers.take(&RUN_DIR)?,
            output: layers.take_picked(&OUTPUT, output),
            unscrubbed: layers.take(&UNSCRUBBED)?,
            color: layers.take(&COLOR)?,
            duration: layers.optional(&DURATION)?.map(seconds),
            quiet: layers.take(&QUIET)?,
            debug: layers.take(&DEBUG)?,
            account,
            shown: std::mem::take(&mut layers.shown),
            warnings: std::mem::take(&mut layers.warnings),
        })
    }
}

/// A count that its bounds keep positive.
fn count(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn spool(layers: &mut Layers<'_>) -> Result<(Option<PathBuf>, u64)> {
    // Who names a folder on the command line wants it used.
    let on = match layers.run.has(&SPOOL_DIR) {
        true => layers.take_picked(
            &SPOOL,
            Picked {
                value: true,
                source: "--spool-dir".to_owned(),
            },
        ),
        false => layers.take(&SPOOL)?,
    };
    let dir = layers.take(&SPOOL_DIR)?;
    let most = if on { SPOOL_MAX_DISK } else { SPOOL_MAX_MEMORY };
    let max = layers.take_or(&SPOOL_MAX, most)?;
    Ok((on.then_some(dir), max))
}

fn targets(layers: &mut Layers<'_>) -> Result<Targets> {
    // Targets of one layer, not a mixture: a flag means exactly this process.
    let by_flags = layers.run.has(&PID) || layers.run.has(&EXE);
    let mut pids = Vec::new();
    let mut executables = Vec::new();
    if !by_flags || layers.run.has(&PID) {
        pids = layers.optional(&PID)?.unwrap_or_default();
    }
    if !by_flags || layers.run.has(&EXE) {
        executables = layers.optional(&EXE)?.unwrap_or_default();
    }
    if !by_flags {
        pids.extend(layers.optional(&TARGET_PID)?);
    }
    let mut probes = layers.optional(&PROBE)?.unwrap_or_default();
    if !layers.take(&TRACING_ENABLED)? {
        probes.clear();
    }
    Ok(Targets {
        pids,
        executables,
        follow: layers.take(&FOLLOW)?,
        all_processes: layers.take(&ALL_PROCESSES)?,
        probes,
        return_probe: layers.take(&RETURN_PROBE)?,
        allow_unsafe: layers.take(&ALLOW_UNSAFE)?,
        span_memory: layers.take(&SPAN_MEMORY)?,
        sample_rate: layers.take(&TRACE_SAMPLE_RATE)?,
    })
}

fn scrub(layers: &mut Layers<'_>) -> Result<ScrubSettings> {
    let rules = layers.optional(&SCRUB)?.unwrap_or_default();
    let program = layers.optional(&SCRUBBER)?;
    let variables = layers.optional(&SCRUBBER_ENV)?.unwrap_or_default();
    let timeout = layers.take(&SCRUBBER_TIMEOUT)?;
    let settings = ScrubSettings {
        rules: rules.into_iter().map(|Checked(rule)| rule).collect(),
        hash_key: layers.optional(&SCRUB_HASH_KEY)?.map(Zeroizing::new),
        program,
        variables,
        environment: None,
        timeout: Duration::from_secs_f64(timeout / 1000.0),
    };
    let source = &layers.file.name;
    if settings.hash_key.is_none() && settings.rules.iter().any(RuleSettings::needs_key) {
        return Err(usage(
            source,
            "a hash rule needs scrub_hash_key, or TERACRON_SCRUB_HASH_KEY",
        ));
    }
    pipeline::scrub::Rules::new(&settings).map_err(|error| usage(source, error))?;
    Ok(settings)
}

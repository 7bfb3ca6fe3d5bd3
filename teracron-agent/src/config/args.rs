//! Flags of the account and of shipping: one for every setting of wire.md.

use std::path::PathBuf;

use clap::Args;
use pipeline::output::{ColorMode, OutputMode};
use planner::probe::ReturnProbeMode;

/// Whose data it is, and where it goes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Account")]
pub struct AccountArgs {
    /// Configuration file [default: /etc/teracron/agent.toml where it exists].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The project's API key (`tcn_…`); also `TERACRON_API_KEY`, or stored by `login`.
    #[arg(long, global = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Name of the project, instead of the API key's.
    #[arg(long, global = true, value_name = "SLUG", hide_short_help = true)]
    pub project_slug: Option<String>,
    /// Public key in PEM, instead of the API key's.
    #[arg(long, global = true, value_name = "PEM", hide_short_help = true)]
    pub public_key: Option<String>,
    /// Host that receives everything [default: www.teracron.com].
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub domain: Option<String>,
    /// Allow a host that is not *.teracron.com.
    #[arg(long, global = true, hide_short_help = true)]
    pub allow_custom_domain: bool,
    /// Certificates of a private authority, in PEM, trusted as well.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub ca_file: Option<PathBuf>,
    /// Seconds that one HTTP request may take, 2 to 30 [default: 10].
    #[arg(long, global = true, value_name = "SECONDS", hide_short_help = true)]
    pub timeout: Option<f64>,
}

/// How much is sent, and when.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Shipping")]
pub struct ShipArgs {
    /// Seconds between memory samples, 5 to 300 [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub interval: Option<f64>,
    /// Memory samples per flush, 1 to 10000 [default: 10].
    #[arg(
        long,
        value_name = "N",
        hide_short_help = true,
        allow_negative_numbers = true
    )]
    pub max_buffer: Option<i64>,
    /// Seconds until samples are flushed in any case, 10 to 600 [default: 60].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub flush_deadline: Option<f64>,
    /// `false`: memory samples only, no probes.
    #[arg(long, value_name = "BOOL", hide_short_help = true)]
    pub tracing_enabled: Option<bool>,
    /// Spans per flush, 1 to 10000 [default: 100].
    #[arg(
        long,
        value_name = "N",
        hide_short_help = true,
        allow_negative_numbers = true
    )]
    pub trace_batch_size: Option<i64>,
    /// Seconds between flushes of spans, 1 to 300 [default: 10].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub trace_flush_interval: Option<f64>,
    /// Share of traces that are kept, 0 to 1 [default: 1].
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub trace_sample_rate: Option<f64>,
    /// `true`: send workflow events as well.
    #[arg(long, value_name = "BOOL", hide_short_help = true)]
    pub trace_emit_events: Option<bool>,
    /// Spans don't carry what they did to the process's memory.
    #[arg(long)]
    pub no_span_memory: bool,
    /// Folder where sealed batches wait [default: /var/lib/teracron/spool].
    #[arg(long, value_name = "FOLDER")]
    pub spool_dir: Option<PathBuf>,
    /// Most that may wait there, like 64MiB; then the oldest go [default: 256MiB; 16MiB in memory].
    #[arg(long, value_name = "SIZE", value_parser = super::file::bytes)]
    pub spool_max: Option<u64>,
    /// Sealed batches wait in memory only.
    #[arg(long, conflicts_with = "spool_dir")]
    pub no_spool: bool,
    /// Seconds that the last flush may take at a stop [default: 10].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub shutdown_timeout: Option<f64>,
    /// Print what was received, shipped and lost every so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub stats_interval: Option<f64>,
    /// Folder of the socket that `status` asks [default: /run/teracron].
    #[arg(long, value_name = "FOLDER", hide_short_help = true)]
    pub run_dir: Option<PathBuf>,
}

/// What help says beside the options.
pub const EXTRA: &str = "\
Without a command, `run` is meant:
  sudo teracron-agent --pid 1234 --probe payment:create_order

Exit codes:
  0  done
  1  failure while running
  2  wrong usage or configuration
  3  a privilege or a kernel feature is missing (see `teracron-agent doctor`)
  4  the target or a symbol was not found, or cannot be probed safely";

/// Options of `run`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_long_help = EXTRA)]
pub struct RunArgs {
    /// Process to trace, as seen from here; may be repeated.
    ///
    /// Its descendants that run the same program are traced too, and children that it forks from a few milliseconds
    /// after the fork on, unless --no-follow. No other process is touched.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Function to trace: `[WORKFLOW:]FUNCTION[@MODULE][(NAME, …)][ fails CONDITION]`; may be repeated.
    ///
    /// FUNCTION is a demangled name with or without parameters (`shop::Cart::total`,
    /// `create_order`), a mangled name, a pattern (`shop::*`), or an address in the file (`0x1234`).
    /// A name stands for the compiler's clones of it, too. MODULE is a path or the name of any file
    /// that the process has mapped (`libpay.so`); without it the main program is searched, then all
    /// libraries. NAMEs are read of each call, and nothing else is: parameters and what is in them
    /// (`order.customer->id`), `ret`, or `KEY=arg1:i64` without debug information. CONDITION says which
    /// calls have failed: `ret < 0`, `ret.code != 0`, `null`, `none`.
    #[arg(long, value_name = "SPEC")]
    pub probe: Vec<String>,
    /// Trace every process that runs this file, now or later; may be repeated.
    ///
    /// Breakpoints are set in the file, so that they are hit in every process that runs it.
    #[arg(long, value_name = "PATH")]
    pub exe: Vec<PathBuf>,
    /// Don't trace children that a process forks.
    #[arg(long)]
    pub no_follow: bool,
    /// Set breakpoints in the program's file instead of in one process after the other.
    ///
    /// Then a forked child's first call is seen, and calls cost the same however many processes there are. But every
    /// process that runs the file is hit, those of others, too: each call costs them about a microsecond, and nothing is
    /// recorded of it. Libraries are left as they are for everybody else.
    #[arg(long)]
    pub all_processes: bool,
    /// How spans are shown on standard output [default: console; none where they are sent].
    #[arg(long, value_enum)]
    pub output: Option<OutputMode>,
    /// Whether colours are used [default: auto].
    #[arg(long, value_enum)]
    pub color: Option<ColorMode>,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How the end of a call is seen.
    ///
    /// `auto`, the default, uses a return probe only where nothing can unwind the stack, and a probe on every way
    /// out of the function elsewhere; `ret` always does the latter; `uretprobe` insists on return
    /// probes and is refused where they could kill the target.
    #[arg(long, value_enum)]
    pub return_probe: Option<ReturnProbeMode>,
    /// Use return probes even where they can kill the target.
    #[arg(long)]
    pub allow_unsafe_return_probes: bool,
    /// Say nothing but errors on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// Say on standard error what the agent does.
    #[arg(long)]
    pub debug: bool,
    /// How much is sent, and when.
    #[command(flatten)]
    pub ship: ShipArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value <= 1e9 => Ok(value),
        _ => Err("a number of seconds above 0 is wanted".to_owned()),
    }
}

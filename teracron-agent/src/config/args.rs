//! Flags of the account and of shipping: one for every setting of wire.md.

use std::path::PathBuf;

use clap::Args;

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

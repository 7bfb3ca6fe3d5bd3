//! All settings. Flags and their help, variables, keys of the file, defaults and bounds, what `config` shows, what SIGHUP
//! may change and the table of docs/settings.md come from here.

use clap::ValueHint;

use super::{
    entries::{Probe, Rule},
    kinds::{Many, Optional, Place, ProcessId, Switch, Text, Word},
    numbers::{Count, Share, Size, Time},
    setting::{
        About,
        Part::{Account, Run, Shipping},
        Row, Setting,
    },
};
use pipeline::output::{ColorMode, OutputMode};
use planner::probe::ReturnProbeMode;

/// Least bytes of a spool: one batch of the largest kind fits in any case.
const SPOOL_LOW: u64 = 64 << 10;

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $value:expr, $about:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $name: Setting<$kind> = Setting { about: $about, kind: $value };
        )*
        /// All settings, in the order of help.
        pub static TABLE: &[&dyn Row] = &[$(&$name),*];
    };
}

table! {
    /// Processes.
    PID: Many<ProcessId> = Many(ProcessId),
        About::new(Run, "pid", "Process to trace, as seen from here; may be repeated")
            .flag("PID").no_variable()
            .more("Its descendants that run the same program are traced too, and children that it forks from a few milliseconds \
                after the fork on, unless --no-follow. No other process is touched.");
    /// One more process, as the reference client names it.
    TARGET_PID: Optional<ProcessId> = Optional(ProcessId),
        About::new(Run, "target_pid", "Process to trace, where no flag names one");
    /// Probes.
    PROBE: Many<Probe> = Many(Probe),
        About::new(Run, "probe", "Function to trace: `[WORKFLOW:]FUNCTION[@MODULE][(NAME, …)][ fails CONDITION]`; may be repeated")
            .flag("SPEC").no_variable().reloadable()
            .more("FUNCTION is a demangled name with or without parameters (`shop::Cart::total`, `create_order`), a mangled name, a \
                pattern (`shop::*`), or an address in the file (`0x1234`). Its last parts are enough where they are one function's (`Load` \
                for `main.(*Store).Load`). A name stands for the compiler's clones of it, too. \
                MODULE is a path or the name of any file that the process has mapped (`libpay.so`); without it the main program \
                is searched, then all libraries. NAMEs are read of each call, and nothing else is: parameters and what is in them \
                (`order.customer->id`), `ret`, or `KEY=arg1:i64` without debug information. CONDITION says which calls have \
                failed: `ret < 0`, `ret.code != 0`, `null`, `none`.");
    /// Executables.
    EXE: Many<Place> = Many(Place { default: "", hint: ValueHint::FilePath }),
        About::new(Run, "exe", "Trace every process that runs this file, now or later; may be repeated")
            .flag("PATH").no_variable()
            .more("Breakpoints are set in the file, so that they are hit in every process that runs it.");
    /// Children are traced, too.
    FOLLOW: Switch = Switch { default: true },
        About::new(Run, "follow", "Don't trace children that a process forks").sets("no-follow", false);
    /// Breakpoints in files.
    ALL_PROCESSES: Switch = Switch { default: false },
        About::new(Run, "all_processes", "Set breakpoints in the program's file instead of in one process after the other")
            .sets("all-processes", true)
            .more("Then a forked child's first call is seen, and calls cost the same however many processes there are. But every \
                process that runs the file is hit, those of others, too: each call costs them about a microsecond, and nothing is \
                recorded of it. Libraries are left as they are for everybody else.");
    /// How spans are shown.
    OUTPUT: Optional<Word<OutputMode>> = Optional(Word { default: OutputMode::Console }),
        About::new(Run, "output", "How spans are shown on standard output")
            .flag("OUTPUT").default("console; none where they are sent");
    /// Colours.
    COLOR: Word<ColorMode> = Word { default: ColorMode::Auto },
        About::new(Run, "color", "Whether colours are used").flag("COLOR").flag_only();
    /// End of the run.
    DURATION: Optional<Time> = Optional(Time::seconds(0.0, 0.001, 1e9)),
        About::new(Run, "duration", "Stop after this time (30, 10m, 2h)").flag("SECONDS").flag_only();
    /// How ends are seen.
    RETURN_PROBE: Word<ReturnProbeMode> = Word { default: ReturnProbeMode::Auto },
        About::new(Run, "return_probe", "How the end of a call is seen").flag("RETURN_PROBE").reloadable()
            .more("`auto`, the default, uses a return probe only where nothing can unwind the stack, and a probe on every way out of \
                the function elsewhere; `ret` always does the latter; `uretprobe` insists on return probes and is refused where \
                they could kill the target.");
    /// Return probes at any price.
    ALLOW_UNSAFE: Switch = Switch { default: false },
        About::new(Run, "allow_unsafe_return_probes", "Use return probes even where they can kill the target")
            .sets("allow-unsafe-return-probes", true).flag_only();
    /// Only errors.
    QUIET: Switch = Switch { default: false },
        About::new(Run, "quiet", "Say nothing but errors on standard error").sets("quiet", true).flag_only();
    /// Everything.
    DEBUG: Switch = Switch { default: false },
        About::new(Run, "debug", "Say on standard error what the agent does").sets("debug", true);

    /// Between memory samples.
    INTERVAL: Time = Time::seconds(10.0, 5.0, 300.0),
        About::new(Shipping, "interval", "Seconds between memory samples").flag("SECONDS").reloadable();
    /// Memory samples per flush.
    MAX_BUFFER: Count = Count { default: 10, low: 1, high: 10_000 },
        About::new(Shipping, "max_buffer", "Memory samples per flush").flag("N").reloadable().rare();
    /// Longest wait of a sample.
    FLUSH_DEADLINE: Time = Time::seconds(60.0, 10.0, 600.0),
        About::new(Shipping, "flush_deadline", "Seconds until samples are flushed in any case")
            .flag("SECONDS").reloadable().rare();
    /// Master switch of probes.
    TRACING_ENABLED: Switch = Switch { default: true },
        About::new(Shipping, "tracing_enabled", "`false`: memory samples only, no probes").flag("BOOL").reloadable().rare();
    /// Spans per flush.
    TRACE_BATCH_SIZE: Count = Count { default: 100, low: 1, high: 10_000 },
        About::new(Shipping, "trace_batch_size", "Spans per flush").flag("N").reloadable().rare();
    /// Between flushes of spans.
    TRACE_FLUSH_INTERVAL: Time = Time::seconds(10.0, 1.0, 300.0),
        About::new(Shipping, "trace_flush_interval", "Seconds between flushes of spans").flag("SECONDS").reloadable().rare();
    /// Share of traces.
    TRACE_SAMPLE_RATE: Share = Share { default: 1.0 },
        About::new(Shipping, "trace_sample_rate", "Share of traces that are kept (0.1 or 10%)").flag("RATE").reloadable();
    /// Workflow events.
    TRACE_EMIT_EVENTS: Switch = Switch { default: false },
        About::new(Shipping, "trace_emit_events", "`true`: send workflow events as well").flag("BOOL").reloadable().rare();
    /// Memory of spans.
    SPAN_MEMORY: Switch = Switch { default: true },
        About::new(Shipping, "span_memory", "Spans don't carry what they did to the process's memory")
            .sets("no-span-memory", false);
    /// Folder of the spool.
    SPOOL_DIR: Place = Place { default: "/var/lib/teracron/spool", hint: ValueHint::DirPath },
        About::new(Shipping, "spool_dir", "Folder where sealed batches wait").flag("FOLDER");
    /// Most bytes of the spool.
    SPOOL_MAX: Size = Size { low: SPOOL_LOW },
        About::new(Shipping, "spool_max", "Most that may wait there (64KiB or more, like 64MiB); then the oldest go")
            .flag("SIZE").default("256MiB; 16MiB in memory");
    /// Whether there is a spool on disk.
    SPOOL: Switch = Switch { default: true },
        About::new(Shipping, "spool", "Sealed batches wait in memory only").sets("no-spool", false).against("spool_dir");
    /// The last flush.
    SHUTDOWN_TIMEOUT: Time = Time::seconds(10.0, 0.0, 600.0),
        About::new(Shipping, "shutdown_timeout", "Seconds that the last flush may take at a stop").flag("SECONDS").rare();
    /// Reports.
    STATS_INTERVAL: Time = Time::seconds(0.0, 0.0, 86_400.0),
        About::new(Shipping, "stats_interval", "Print what was received, shipped and lost every so many seconds (0: never)")
            .flag("SECONDS").reloadable();
    /// Folder of the status socket.
    RUN_DIR: Place = Place { default: super::RUN_FOLDER, hint: ValueHint::DirPath },
        About::new(Shipping, "run_dir", "Folder of the socket that `status` asks").flag("FOLDER").rare();
    /// Scrub rules.
    SCRUB: Many<Rule> = Many(Rule),
        About::new(Shipping, "scrub", "What is taken out of spans before they are kept").no_variable().reloadable();
    /// Key of hash rules.
    SCRUB_HASH_KEY: Text = Text,
        About::new(Shipping, "scrub_hash_key", "Key of `hash` rules").reloadable().secret();
    /// The user's program.
    SCRUBBER: Many<Text> = Many(Text),
        About::new(Shipping, "scrubber", "Program that scrubs, with its arguments").no_variable().reloadable();
    /// What it may see.
    SCRUBBER_ENV: Many<Text> = Many(Text),
        About::new(Shipping, "scrubber_env", "Names of the variables that it sees beside PATH and LANG").no_variable().reloadable();
    /// For an answer of it.
    SCRUBBER_TIMEOUT: Time = Time::milliseconds(100.0, 1.0, 10_000.0),
        About::new(Shipping, "scrubber_timeout", "Milliseconds that it has for an answer").reloadable();

    /// The file.
    CONFIG: Optional<Place> = Optional(Place { default: "", hint: ValueHint::FilePath }),
        About::new(Account, "config", "Configuration file").flag("FILE").flag_only()
            .default("/etc/teracron/agent.toml where it exists");
    /// The API key.
    API_KEY: Text = Text,
        About::new(Account, "api_key", "The project's API key (`tcn_…`); also `TERACRON_API_KEY`, or stored by `login`")
            .flag("KEY").secret();
    /// Name of the project.
    PROJECT_SLUG: Text = Text,
        About::new(Account, "project_slug", "Name of the project, instead of the API key's").flag("SLUG").rare();
    /// Its public key.
    PUBLIC_KEY: Text = Text,
        About::new(Account, "public_key", "Public key in PEM, instead of the API key's").flag("PEM").rare();
    /// Where everything goes.
    DOMAIN: Text = Text,
        About::new(Account, "domain", "Host that receives everything").flag("HOST[:PORT]").default("www.teracron.com");
    /// Any host is allowed.
    ALLOW_CUSTOM_DOMAIN: Switch = Switch { default: false },
        About::new(Account, "allow_custom_domain", "Allow a host that is not *.teracron.com")
            .sets("allow-custom-domain", true).rare();
    /// Certificates.
    CA_FILE: Optional<Place> = Optional(Place { default: "", hint: ValueHint::FilePath }),
        About::new(Account, "ca_file", "Certificates of a private authority, in PEM, trusted as well").flag("FILE").rare();
    /// For one request.
    TIMEOUT: Time = Time::seconds(10.0, 2.0, 30.0),
        About::new(Account, "timeout", "Seconds that one HTTP request may take").flag("SECONDS").rare();
}

/// Whether a setting may change while the agent runs.
pub fn is_reloadable(key: &str) -> bool {
    let about = TABLE.iter().map(|row| row.about());
    about
        .into_iter()
        .any(|about| about.key == key && about.reloadable)
}

//! The way to the service, as the settings ask for it: what is handed to the process that delivers, and what is said of it
//! at the end.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{Account, Settings},
    delivering::{Delivering, Intake, Ledger, RuleSet, Setup},
    run::plural,
    status::Wire,
};
use model::{
    Kind,
    error::Result,
    notes::Notes,
    text::{self, counted, grouped},
    totals::{self, Snapshot},
};
use pipeline::pack::Batching;

/// Everything behind the kernel reader.
pub struct Shipping {
    delivering: Delivering,
    wire: Wire,
    patience: Duration,
    notes: Notes,
}

impl Shipping {
    /// Opens the spool and starts the process that delivers. What an earlier run left goes out first.
    ///
    /// # Errors
    /// Where the spool, the scrubber or TLS can't be prepared.
    pub fn start(settings: &Settings, account: &Account, notes: Notes) -> Result<Self> {
        let endpoint = &settings.account.endpoint;
        let setup = Setup {
            slug: account.slug.clone(),
            public_key: account.public_key.der().to_vec(),
            endpoint: endpoint.clone(),
            // Whoever delivers may not be allowed to read it.
            certificates: endpoint.certificates()?,
            spool_max: settings.spool_max,
            quiet: settings.quiet,
            debug: settings.debug,
            rules: rules(settings, &account.slug),
        };
        let delivering = Delivering::start(setup, settings.spool_dir.as_deref(), notes)?;
        let wire = Wire {
            slug: account.slug.clone(),
            domain: endpoint.domain.clone(),
            ledger: delivering.ledger(),
            folder: settings.spool_dir.clone(),
        };
        Ok(Self {
            delivering,
            wire,
            patience: settings.shutdown_timeout,
            notes,
        })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.delivering.intake()
    }

    /// What a status says of it.
    pub fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Takes rules and batch sizes that have changed.
    ///
    /// # Errors
    /// Where they can't be handed over; the old ones stay.
    pub fn change(&self, settings: &Settings) -> Result<()> {
        // The account stays the one of the start, whatever the new settings name.
        self.delivering.change(&rules(settings, &self.wire.slug))
    }

    /// Delivers what is still here, for as long as a stop may take, and says what stays.
    pub fn finish(self) {
        self.delivering.finish(self.patience);
        let totals = self.wire.ledger.snapshot();
        for line in lines(&totals, &self.wire.ledger) {
            self.notes.say(&line);
        }
        let state = self.wire.ledger.state();
        if state.batches == 0 {
            return;
        }
        let what = format!(
            "{} ({} KiB) not delivered",
            plural(
                usize::try_from(state.batches).unwrap_or(usize::MAX),
                "sealed batch"
            ),
            grouped(state.bytes / 1024)
        );
        let reason = match state.health.failing {
            Some(why) => format!(": {}", text::shown(&why)),
            None => String::new(),
        };
        match self.wire.folder {
            Some(folder) => self.notes.say(&format!(
                "{what}{reason}; they wait in {} for the next start",
                text::shown(&folder.to_string_lossy())
            )),
            None => self.notes.say(&format!(
                "{what}{reason}; they are lost, because --no-spool keeps them in memory only"
            )),
        }
    }
}

/// What became of everything, for people.
pub(super) fn lines(totals: &Snapshot, ledger: &Arc<Ledger>) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let of_kind = totals.of(kind);
        if of_kind.received + of_kind.left_over > 0 {
            lines.push(totals::line(kind, of_kind));
        }
    }
    lines.extend(totals::scrub_line(totals));
    let processes = ledger.processes();
    if processes.ended > 0 {
        lines.push(format!(
            "the process that delivers ended {}, at last: it {}",
            counted(processes.ended, "time"),
            text::shown(&processes.why.unwrap_or_default())
        ));
    }
    lines
}

fn rules(settings: &Settings, slug: &str) -> RuleSet {
    let mut scrub = settings.scrub.clone();
    scrub.read_variables();
    RuleSet {
        batching: Batching {
            slug: slug.to_owned(),
            spans: settings.batch_size,
            spans_wait: settings.flush_interval,
            samples: settings.max_buffer,
            samples_wait: settings.flush_deadline,
            events: settings.emit_events,
        },
        scrub,
    }
}

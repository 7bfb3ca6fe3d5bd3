//! The way to the wire: packer, spool and shipper, started and stopped together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    config::{Account, Settings},
    run::plural,
    status::Wire,
};
use model::{
    Kind,
    error::{Error, Result},
    notes::Notes,
    text::{self, grouped},
    totals::{self, Totals},
};
use pipeline::{
    pack::{Batching, Intake, Outlet, Packer, Rules},
    scrub::Scrubber,
    ship::{Courier, Pace, Route, Shipper},
    spool::{Disk, SharedSpool, Spool},
};
use wire::seal::Sealer;

/// Everything behind the kernel reader.
pub struct Shipping {
    packer: Packer,
    shipper: Shipper,
    wire: Wire,
    patience: Duration,
    notes: Notes,
}

impl Shipping {
    /// Opens the spool and starts the threads. What an earlier run left goes out first.
    ///
    /// # Errors
    /// Where the spool, the scrubber or TLS can't be prepared.
    pub fn start(settings: &Settings, account: &Account, notes: Notes) -> Result<Self> {
        let courier = Courier::new(&account.slug, &settings.account.endpoint)?;
        let rules = rules(settings, &account.slug)?;
        let totals = Arc::new(Totals::default());
        let spool = open_spool(settings, account, &totals, notes)?;
        let wake = Arc::new(Notify::new());
        let shipper = Shipper::start(Route {
            courier,
            spool: spool.clone(),
            wake: wake.clone(),
            totals: totals.clone(),
            pace: Pace::default(),
            notes,
        })?;
        let packer = Packer::start(
            rules,
            Outlet {
                sealer: Sealer::new(account.public_key.clone()),
                spool: spool.clone(),
                wake,
                notes,
            },
            totals.clone(),
        )?;
        let wire = Wire {
            slug: account.slug.clone(),
            domain: settings.account.endpoint.domain.clone(),
            totals,
            spool,
            health: shipper.health(),
        };
        Ok(Self {
            packer,
            shipper,
            wire,
            patience: settings.shutdown_timeout,
            notes,
        })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.packer.intake()
    }

    /// What a status says of it.
    pub fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Takes rules and batch sizes that have changed.
    ///
    /// # Errors
    /// Where the scrubber can't be started; the old one stays.
    pub fn change(&self, settings: &Settings) -> Result<()> {
        // The account stays the one of the start, whatever the new settings name.
        let rules = rules(settings, &self.wire.slug)?;
        self.packer.intake().rules(rules);
        Ok(())
    }

    /// Packs and sends what is still here, for as long as a stop may take, and says what stays. Every
    /// intake must be gone.
    pub fn finish(self) {
        let deadline = Instant::now() + self.patience;
        self.packer.finish(deadline);
        self.shipper.finish(deadline);
        let totals = self.wire.totals.snapshot();
        for kind in Kind::ALL {
            let of_kind = totals.of(kind);
            if of_kind.received + of_kind.left_over > 0 {
                self.notes.say(&totals::line(kind, of_kind));
            }
        }
        if let Some(line) = totals::scrub_line(&totals) {
            self.notes.say(&line);
        }
        let (batches, bytes) = self.wire.spool.size();
        if batches == 0 {
            return;
        }
        let what = format!(
            "{} ({} KiB) not delivered",
            plural(batches, "sealed batch"),
            grouped(bytes / 1024)
        );
        let reason = match self.wire.health.now().failing {
            Some(why) => format!(": {why}"),
            None => String::new(),
        };
        match self.wire.spool.folder() {
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

fn rules(settings: &Settings, slug: &str) -> Result<Rules> {
    Ok(Rules {
        batching: Batching {
            slug: slug.to_owned(),
            spans: settings.batch_size,
            spans_wait: settings.flush_interval,
            samples: settings.max_buffer,
            samples_wait: settings.flush_deadline,
            events: settings.emit_events,
        },
        scrubber: Scrubber::new(&settings.scrub).map_err(Error::Usage)?,
    })
}

fn open_spool(
    settings: &Settings,
    account: &Account,
    totals: &Totals,
    notes: Notes,
) -> Result<SharedSpool> {
    let Some(folder) = &settings.spool_dir else {
        return Ok(SharedSpool::new(Spool::in_memory(settings.spool_max)));
    };
    let shown = text::shown(&folder.to_string_lossy());
    let (disk, left_over, problems) = Disk::open(folder, &account.slug).map_err(|error| {
        Error::Failed(format!(
            "cannot use the spool {shown}: {error}; --spool-dir names another, --no-spool does without"
        ))
    })?;
    for problem in problems {
        notes.say(&problem);
    }
    if !left_over.is_empty() {
        notes.say(&format!(
            "{} of an earlier run in {shown}: sent first",
            plural(left_over.len(), "sealed batch")
        ));
    }
    for head in &left_over {
        totals.left_over(head.kind, head.count.into());
    }
    Ok(SharedSpool::new(Spool::on_disk(
        disk,
        left_over,
        settings.spool_max,
    )))
}

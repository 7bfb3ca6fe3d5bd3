//! What runs beside the kernel reader: the way to the wire, memory samples, the status socket.

use std::{
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use crate::{
    config::{Account, Settings},
    delivering::{Delivery, Handling, Intake, Start},
    status::{Board, Server, Traced, Wire},
};
use model::{
    Kind, ProcessSample,
    error::Result,
    notes::Notes,
    text::{self, grouped},
    totals,
};
use pipeline::{output::OutputMode, pack::Batching};
use tracer::memory::Sampling;

/// Everything beside the reader. None of it ever makes the reader wait.
pub struct Sides {
    delivery: Option<Delivery>,
    /// Name of the project that is sent to.
    slug: Option<String>,
    intake: Option<Intake>,
    sampling: Option<Sampling>,
    samples: Option<Receiver<Vec<ProcessSample>>>,
    board: Board,
    _server: Option<Server>,
    stats: Option<(Duration, Instant)>,
    /// Tells the user things.
    pub notes: Notes,
}

impl Sides {
    /// Starts what the settings ask for.
    ///
    /// # Errors
    /// Where the way to the wire can't be prepared.
    pub fn start(settings: &Settings) -> Result<Self> {
        let notes = Notes {
            quiet: settings.quiet,
        };
        let delivery = match &settings.account.account {
            Some(account) => {
                notes.say(&format!(
                    "sending to {} as {}, encrypted for its owner (key from {})",
                    text::shown(&settings.account.endpoint.domain),
                    account.slug,
                    text::shown(&account.source)
                ));
                Some(deliver(settings, account)?)
            }
            None => {
                notes.say(
                    "no API key: nothing leaves this machine (`teracron-agent login` stores one)",
                );
                None
            }
        };
        let slug = settings.account.account.as_ref();
        let slug = slug.map(|account| account.slug.clone());
        let wire = slug.clone().zip(delivery.as_ref());
        let board = Board::new(wire.map(|(slug, delivery)| Wire {
            slug,
            domain: settings.account.endpoint.domain.clone(),
            reports: delivery.reports(),
        }));
        let server = Server::start(&settings.run_dir, board.clone());
        if let Err(error) = &server {
            notes.say(&format!(
                "`teracron-agent status` will not find this agent: {}: {error}",
                text::shown(&settings.run_dir.to_string_lossy())
            ));
        }
        Ok(Self {
            intake: delivery.as_ref().map(Delivery::intake),
            delivery,
            slug,
            sampling: None,
            samples: None,
            board,
            _server: server.ok(),
            stats: stats(settings),
            notes,
        })
    }

    /// Begins to sample the memory of these processes, where anybody wants to know.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn sample(&mut self, settings: &Settings, pids: Vec<u32>) -> Result<()> {
        let shown = settings.output == OutputMode::Json;
        if self.intake.is_none() && !shown {
            return Ok(());
        }
        let (sender, samples) = channel();
        let intake = self.intake.clone();
        self.samples = shown.then_some(samples);
        self.sampling = Some(Sampling::start(pids, settings.interval, move |samples| {
            if let Some(intake) = &intake {
                intake.samples(samples.clone());
            }
            // Nobody listens unless they are shown.
            let _ = sender.send(samples);
        })?);
        Ok(())
    }

    /// Whether spans are sent.
    pub fn wants_spans(&self) -> bool {
        self.intake.is_some()
    }

    /// Takes spans to send.
    pub fn spans(&self, spans: Vec<wire::Span>) {
        if let Some(intake) = &self.intake
            && !spans.is_empty()
        {
            intake.spans(spans);
        }
    }

    /// Memory samples to show.
    pub fn samples(&self) -> Vec<ProcessSample> {
        self.samples
            .iter()
            .flat_map(Receiver::try_iter)
            .flatten()
            .collect()
    }

    /// These processes are alive now.
    pub fn processes(&self, pids: Vec<u32>) {
        if let Some(sampling) = &self.sampling {
            sampling.watch(pids);
        }
    }

    /// A process runs a new program.
    pub fn forget(&self, pid: u32) {
        if let Some(sampling) = &self.sampling {
            sampling.forget(pid);
        }
    }

    /// Once a second: what the reader knows.
    pub fn report(&mut self, traced: Traced) {
        let kernel = traced.kernel;
        self.board.update(traced);
        if let Some((interval, last)) = &mut self.stats
            && last.elapsed() >= *interval
        {
            *last = Instant::now();
            let mut parts = vec![format!(
                "calls {} seen, {} lost, {} left out by sampling",
                grouped(kernel.entered),
                grouped(kernel.lost),
                grouped(kernel.unsampled)
            )];
            if let Some(delivery) = &self.delivery {
                let totals = delivery.reports().now().totals;
                for kind in Kind::ALL {
                    let of_kind = totals.of(kind);
                    if of_kind.received + of_kind.left_over > 0 {
                        parts.push(totals::line(kind, of_kind));
                    }
                }
                parts.extend(totals::scrub_line(&totals));
            }
            self.notes.say(&parts.join("; "));
        }
    }

    /// Takes settings that may change while the agent runs.
    ///
    /// # Errors
    /// Where the scrubber can't be started; the old rules stay.
    pub fn change(&mut self, settings: &Settings) -> Result<()> {
        if let (Some(delivery), Some(slug)) = (&self.delivery, &self.slug) {
            // The account stays the one of the start, whatever the new settings name.
            delivery.change(handling(settings, slug));
        }
        if let Some(sampling) = &self.sampling {
            sampling.every(settings.interval);
        }
        self.stats = stats(settings);
        Ok(())
    }

    /// Stops everything; what is to be sent still gets some time.
    pub fn finish(self) {
        if let Some(sampling) = self.sampling {
            sampling.finish();
        }
        drop(self.intake);
        if let Some(delivery) = self.delivery {
            delivery.finish();
        }
    }
}

/// Starts to deliver for an account.
///
/// # Errors
/// Where the process for it can't be started, or says why it can't do its work.
pub fn deliver(settings: &Settings, account: &Account) -> Result<Delivery> {
    Delivery::start(
        start_of(settings, account)?,
        settings.spool_dir.clone(),
        settings.shutdown_timeout,
    )
}

/// What delivering needs of the settings.
fn start_of(settings: &Settings, account: &Account) -> Result<Start> {
    let spool = settings.spool_dir.as_ref();
    Ok(Start {
        slug: account.slug.clone(),
        key: account.public_key.der().to_vec(),
        endpoint: settings.account.endpoint.clone(),
        certificates: settings.account.endpoint.certificates()?,
        handling: handling(settings, &account.slug),
        spool: spool.map(|folder| folder.to_string_lossy().into_owned()),
        spool_max: settings.spool_max,
        quiet: settings.quiet,
        debug: settings.debug,
    })
}

fn handling(settings: &Settings, slug: &str) -> Handling {
    Handling {
        batching: Batching {
            slug: slug.to_owned(),
            spans: settings.batch_size,
            spans_wait: settings.flush_interval,
            samples: settings.max_buffer,
            samples_wait: settings.flush_deadline,
            events: settings.emit_events,
        },
        scrub: settings.scrub.clone(),
    }
}

fn stats(settings: &Settings) -> Option<(Duration, Instant)> {
    settings
        .stats_interval
        .map(|interval| (interval, Instant::now()))
}

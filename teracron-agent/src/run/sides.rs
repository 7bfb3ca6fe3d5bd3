//! What runs beside the kernel reader: the way to the wire, memory samples, the status socket.

use std::{
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use zeroize::Zeroize as _;

use super::shipping::{Shipping, lines};
use crate::{
    config::Settings,
    delivering::Intake,
    status::{Board, Server, Traced},
};
use model::{
    ProcessSample,
    error::Result,
    notes::Notes,
    text::{self, grouped},
};
use pipeline::output::OutputMode;
use tracer::memory::Sampling;

/// Everything beside the reader. None of it ever makes the reader wait.
pub(super) struct Sides {
    shipping: Option<Shipping>,
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
    /// Starts what the settings ask for, and wipes of them what only the process that delivers needs to know.
    ///
    /// # Errors
    /// Where the way to the wire can't be prepared.
    pub(super) fn start(settings: &mut Settings) -> Result<Self> {
        let notes = Notes {
            quiet: settings.quiet,
        };
        let shipping = match &settings.account.account {
            Some(account) => {
                notes.say(&format!(
                    "sending to {} as {}, encrypted for its owner (key from {})",
                    text::shown(&settings.account.endpoint.domain),
                    account.slug,
                    text::shown(&account.source)
                ));
                Some(Shipping::start(settings, account, notes)?)
            }
            None => {
                notes.say(
                    "no API key: nothing leaves this machine (`teracron-agent login` stores one)",
                );
                None
            }
        };
        wipe(settings);
        let board = Board::new(shipping.as_ref().map(Shipping::wire));
        let server = Server::start(&settings.run_dir, board.clone());
        if let Err(error) = &server {
            notes.say(&format!(
                "`teracron-agent status` will not find this agent: {}: {error}",
                text::shown(&settings.run_dir.to_string_lossy())
            ));
        }
        Ok(Self {
            intake: shipping.as_ref().map(Shipping::intake),
            shipping,
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
    pub(super) fn sample(&mut self, settings: &Settings, pids: Vec<u32>) -> Result<()> {
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

    /// Where spans go that are to be sent; `None` where none are.
    pub(super) fn intake(&self) -> Option<Intake> {
        self.intake.clone()
    }

    /// Memory samples to show.
    pub(super) fn samples(&self) -> Vec<ProcessSample> {
        self.samples
            .iter()
            .flat_map(Receiver::try_iter)
            .flatten()
            .collect()
    }

    /// These processes are alive now.
    pub(super) fn processes(&self, pids: Vec<u32>) {
        if let Some(sampling) = &self.sampling {
            sampling.watch(pids);
        }
    }

    /// A process runs a new program.
    pub(super) fn forget(&self, pid: u32) {
        if let Some(sampling) = &self.sampling {
            sampling.forget(pid);
        }
    }

    /// Once a second: what the reader knows.
    pub(super) fn report(&mut self, traced: Traced) {
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
            if let Some(shipping) = &self.shipping {
                let ledger = shipping.wire().ledger;
                parts.extend(lines(&ledger.snapshot(), &ledger));
            }
            self.notes.say(&parts.join("; "));
        }
    }

    /// Takes settings that may change while the agent runs; wipes them as [`start`](Self::start) does.
    ///
    /// # Errors
    /// Where they can't be handed over; the old rules stay.
    pub(super) fn change(&mut self, settings: &mut Settings) -> Result<()> {
        if let Some(shipping) = &self.shipping {
            shipping.change(settings)?;
        }
        wipe(settings);
        if let Some(sampling) = &self.sampling {
            sampling.every(settings.interval);
        }
        self.stats = stats(settings);
        Ok(())
    }

    /// Stops everything; what is to be sent still gets some time.
    pub(super) fn finish(self) {
        if let Some(sampling) = self.sampling {
            sampling.finish();
        }
        drop(self.intake);
        if let Some(shipping) = self.shipping {
            shipping.finish();
        }
    }
}

/// What is secret in settings is not kept here once it was handed over.
fn wipe(settings: &mut Settings) {
    settings.scrub.hash_key = None;
    if let Some(account) = &mut settings.account.account
        && let Some(token) = &mut account.token
    {
        token.zeroize();
        account.token = None;
    }
}

fn stats(settings: &Settings) -> Option<(Duration, Instant)> {
    settings
        .stats_interval
        .map(|interval| (interval, Instant::now()))
}

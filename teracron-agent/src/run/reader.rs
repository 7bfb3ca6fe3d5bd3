//! The loop that reads the kernel's records and hands spans to the output.

use std::{
    io,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use teracron_common::Counters;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::{is_closed_pipe, processes::Processes, wait::readable};
use crate::{
    attach::{KernelCost, Session},
    cli::RunArgs,
    error::{Context as _, Error, Result},
    output::{Output, StatusLine, Summary},
    probe::{ProbeTable, Program},
    read::{self, Change},
    span::{Assembler, Status, StepWatch},
};

/// The reader looks this often while records come: the ring buffer holds what one core can produce
/// in several times as long.
const BUSY: Duration = Duration::from_millis(10);
/// While none come, it waits for the kernel side, which wakes it with the first one. That record can
/// slip in between its last look and its sleep; then it is found after this time.
const IDLE: Duration = Duration::from_millis(250);
/// Records read before anything else is looked at.
const BATCH: usize = 50_000;
/// Between reports.
const SECOND: Duration = Duration::from_secs(1);
/// The kernel's programs are timed for a second every so many: timing itself costs some, and
/// switching it on and off stops all processors for a moment.
const TIMED_EVERY: u64 = 120;

/// What is attached, and what is known of it.
pub struct Traced {
    /// The kernel side.
    pub session: Session,
    /// Names of the probes.
    pub table: ProbeTable,
    /// Processes.
    pub processes: Processes,
    /// Makes spans; its clock was read before the first call counted.
    pub assembler: Assembler,
}

/// The reading side of a run.
pub struct Reader {
    session: Session,
    table: ProbeTable,
    processes: Processes,
    output: Box<dyn Output>,
    status: StatusLine,
    assembler: Assembler,
    spans: AsyncFd<RingBuf<MapData>>,
    events: AsyncFd<RingBuf<MapData>>,
    summary: Summary,
    reported: Counters,
    duration: Option<Duration>,
    quiet: bool,
    signals: StopSignals,
}

/// The signals that ask the agent to stop.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Listens from now on; before anything is attached, so that a stop never leaves a probe.
    pub fn listen() -> Result<Self> {
        let listen =
            |kind: SignalKind| signal(kind).failed(|| "cannot listen for signals".to_owned());
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Why the loop ended.
enum Stop {
    /// Targets ended, time is over, or a signal came.
    Done,
    /// Nobody reads the output any more.
    Unread,
}

impl Reader {
    /// Takes everything that a run has made.
    pub fn new(
        traced: Traced,
        output: Box<dyn Output>,
        status: StatusLine,
        signals: StopSignals,
        args: &RunArgs,
    ) -> Result<Self> {
        let Traced {
            mut session,
            table,
            processes,
            assembler,
        } = traced;
        let mut ring = |name: &str| {
            readable(session.take_ring(name)?)
                .failed(|| format!("cannot wait for the ring buffer {name}"))
        };
        let (spans, events) = (ring("SPANS")?, ring("EVENTS")?);
        Ok(Self {
            session,
            table,
            processes,
            output,
            status,
            assembler,
            spans,
            events,
            summary: Summary::default(),
            reported: Counters::default(),
            duration: args
                .duration
                .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
            quiet: args.quiet,
            signals,
        })
    }

    /// Reads until the end, then detaches and reads the rest.
    pub async fn run(mut self) -> Result<Summary> {
        let started = Instant::now();
        let stop = match self.read_until_stopped(started).await {
            Ok(stop) => stop,
            Err(error) => {
                self.session.detach();
                return Err(error);
            }
        };
        self.status.clear();
        let finished = match stop {
            Stop::Unread => Ok(()),
            Stop::Done => self.drain_the_rest(),
        };
        self.session.detach();
        self.summary.elapsed = started.elapsed();
        self.summary.counters = self.session.counters()?;
        self.summary.kernel_ns_per_call = self.cost_per_call();
        self.summary.hidden = self.output.hidden();
        match finished {
            Err(error) if !is_closed_pipe(&error) => {
                Err(Error::Failed(format!("cannot write spans: {error}")))
            }
            _ => Ok(self.summary),
        }
    }

    async fn read_until_stopped(&mut self, started: Instant) -> Result<Stop> {
        let steps = StepWatch::new().and_then(readable).ok();
        let mut pause = BUSY;
        let mut last_second = started;
        let mut seconds = 0u64;
        self.session.time_programs(true);
        loop {
            let left = match self.duration {
                Some(duration) => match duration.checked_sub(started.elapsed()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Ok(Stop::Done),
                },
                None => Duration::MAX,
            };
            let mut process_ended = false;
            tokio::select! {
                () = self.signals.received() => return Ok(Stop::Done),
                guard = self.spans.readable_mut(), if pause != BUSY => { if let Ok(mut guard) = guard { guard.clear_ready(); } }
                guard = self.events.readable_mut() => { if let Ok(mut guard) = guard { guard.clear_ready(); } }
                () = self.processes.ended() => process_ended = true,
                () = clock_set(steps.as_ref()) => {}
                () = sleep(pause.min(left)) => {}
            }
            self.assembler.clock.update();
            let read = match self.read_once() {
                Ok(read) => read,
                Err(error) if is_closed_pipe(&error) => return Ok(Stop::Unread),
                Err(error) => return Err(Error::Failed(format!("cannot write spans: {error}"))),
            };
            pause = if read > 0 { BUSY } else { IDLE };
            if process_ended {
                self.processes.after_end()?;
            }
            let since = last_second.elapsed();
            if since >= SECOND {
                last_second = Instant::now();
                if seconds.is_multiple_of(TIMED_EVERY) {
                    self.session.time_programs(false);
                }
                seconds += 1;
                if seconds.is_multiple_of(TIMED_EVERY) {
                    self.session.time_programs(true);
                }
                self.processes.refresh();
                match self.report(since) {
                    Err(error) if is_closed_pipe(&error) => return Ok(Stop::Unread),
                    Err(error) => {
                        return Err(Error::Failed(format!("cannot write spans: {error}")));
                    }
                    Ok(()) => {}
                }
            }
            if self.processes.is_over() && read == 0 {
                return Ok(Stop::Done);
            }
        }
    }

    /// Once a second: losses, and the live line.
    fn report(&mut self, since: Duration) -> io::Result<()> {
        let Ok(counters) = self.session.counters() else {
            return Ok(());
        };
        if counters.troubles() > self.reported.troubles() {
            self.status.clear();
            if !self.quiet {
                self.output.loss(&counters)?;
                self.output.flush()?;
            }
            self.reported = counters;
        }
        self.status.show(
            self.summary.spans,
            counters.lost(),
            self.output.hidden(),
            since,
        );
        Ok(())
    }

    /// Reads what is there, and no more than a batch.
    fn read_once(&mut self) -> io::Result<usize> {
        self.read_events();
        let mut read = 0;
        let ring = self.spans.get_mut();
        while read < BATCH {
            let Some(item) = ring.next() else {
                break;
            };
            if read == 0 {
                self.status.clear();
            }
            read += 1;
            match read::span(&item) {
                Ok(raw) => {
                    self.summary.spans += 1;
                    self.summary.traces += u64::from(raw.record.parent_id == [0, 0]);
                    if let Some(span) = self.assembler.span(&raw, &self.table) {
                        self.summary.failed += u64::from(span.status == Status::Failed);
                        self.output.span(&span)?;
                    }
                }
                Err(error) => log::error!("{error}"),
            }
        }
        if read > 0 {
            self.output.flush()?;
        }
        Ok(read)
    }

    fn read_events(&mut self) {
        let ring = self.events.get_mut();
        while let Some(item) = ring.next() {
            match read::change(&item) {
                Ok(change) => {
                    log::debug!("{change:?}");
                    match change {
                        Change::Forked(pid) | Change::Executed(pid) => {
                            self.assembler.learn_process(pid);
                        }
                        Change::Exited(_) => {}
                    }
                    self.processes.change(change);
                }
                Err(error) => log::error!("{error}"),
            }
        }
    }

    /// Detaches, reading on meanwhile so that nothing is lost, then shows what is still open.
    fn drain_the_rest(&mut self) -> io::Result<()> {
        let detaching = self.session.detach_in_background();
        while !detaching.is_finished() {
            if self.read_once()? == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = detaching.join();
        while self.read_once()? > 0 {}
        let now = crate::span::monotonic_ns();
        for mut open in self.session.open_frames().unwrap_or_default() {
            open.0.end_ns = now;
            let raw = read::RawSpan {
                record: open.0,
                end: teracron_common::End::Open,
                type_name: &[],
                message: &[],
            };
            self.summary.spans += 1;
            self.summary.open += 1;
            self.summary.traces += u64::from(raw.record.parent_id == [0, 0]);
            if let Some(span) = self.assembler.span(&raw, &self.table) {
                self.output.span(&span)?;
            }
        }
        if let Ok(counters) = self.session.counters()
            && counters != self.reported
            && counters.lost() > 0
        {
            self.output.loss(&counters)?;
        }
        self.output.finish()
    }

    /// Nanoseconds in the kernel side per call: its beginning and its end.
    fn cost_per_call(&self) -> Option<f64> {
        let average = |costs: &[KernelCost]| {
            let runs: u64 = costs.iter().map(|cost| cost.runs).sum();
            let nanoseconds: u64 = costs.iter().map(|cost| cost.nanoseconds).sum();
            (runs > 0).then(|| nanoseconds as f64 / runs as f64)
        };
        let begin = average(&[self.session.cost(Program::SpanEnter)])?;
        let end = average(&[
            self.session.cost(Program::SpanExit),
            self.session.cost(Program::SpanReturn),
        ])?;
        Some(begin + end)
    }
}

/// Waits until the wall clock is set.
async fn clock_set(watch: Option<&AsyncFd<StepWatch>>) {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    if let Ok(mut guard) = watch.readable().await {
        let _ = guard.get_inner().arm();
        guard.clear_ready();
    }
}

//! Where spans go: each is handed to all sinks from one place.

use std::io;

use teracron_common::{Counters, End};

use super::veil::Veil;
use crate::delivering::Intake;
use model::{
    ProcessSample, Span,
    totals::{Cause, KindTotals},
};
use pipeline::output::{Death, InlinedCalls, Sink, Summary, Unseen};
use tracer::decode::RawSpan;
use wire::Status;

/// Spans that are handed to the process that delivers at a time.
const CHUNK: usize = 1_024;

/// The Teracron service, by way of the process that delivers.
struct Service {
    intake: Intake,
    /// Of one reading.
    to_send: Vec<wire::Span>,
}

impl Sink for Service {
    fn name(&self) -> &'static str {
        "service"
    }

    fn books(&self) -> KindTotals {
        let mut books = self.intake.totals().spans;
        let kept = self.to_send.len() as u64;
        books.received += kept;
        books.pending += kept;
        books
    }

    fn span(&mut self, span: &Span<'_>) -> io::Result<()> {
        self.to_send.push(span.to_wire());
        if self.to_send.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.to_send.is_empty() {
            self.intake.spans(std::mem::take(&mut self.to_send));
        }
        Ok(())
    }
}

/// What is shown, and what is sent. Neither makes whoever hands something over wait, and none misses what another can't
/// take.
pub(super) struct Sinks {
    service: Option<Service>,
    /// Those that show.
    shown: Vec<Box<dyn Sink>>,
    veil: Veil,
}

impl Sinks {
    /// Those that show, if any, what is under `veil`, and the service where there is an account.
    pub(super) fn new(shown: Option<Box<dyn Sink>>, veil: Veil, service: Option<Intake>) -> Self {
        let service = service.map(|intake| Service {
            intake,
            to_send: Vec::new(),
        });
        Self {
            service,
            shown: shown.into_iter().collect(),
            veil,
        }
    }

    /// Shows what is under another veil from now on; answers what is to be said of that.
    pub(super) fn change(&mut self, veil: Veil) -> Option<&'static str> {
        let note = veil.note().filter(|_| self.veil.note().is_none());
        self.veil = veil;
        note
    }

    /// Counts what ended as `raw` says, and hands its span on; none is made of what is not to be told.
    ///
    /// # Errors
    /// Where a sink can't take it; the others have it.
    pub(super) fn take(
        &mut self,
        raw: &RawSpan<'_>,
        span: Option<Span<'_>>,
        summary: &mut Summary,
    ) -> io::Result<()> {
        summary.spans += 1;
        summary.open += u64::from(raw.end == End::Open);
        summary.traces += u64::from(raw.record.parent_id == [0, 0]);
        let Some(span) = span else {
            return Ok(());
        };
        summary.failed += u64::from(span.status == Status::Failed);
        self.deliver(&span)
    }

    /// Asks all, and answers the first error.
    fn all(&mut self, mut ask: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> io::Result<()> {
        let service = self.service.as_mut().map_or(Ok(()), |sink| ask(sink));
        let shown = self.shown.iter_mut().map(|sink| ask(sink.as_mut()));
        shown.fold(service, io::Result::and)
    }

    /// The process that delivers scrubs what is sent.
    fn deliver(&mut self, span: &Span<'_>) -> io::Result<()> {
        let service = self.service.as_mut().map_or(Ok(()), |sink| sink.span(span));
        let veiled = match self.shown.is_empty() {
            true => None,
            false => self.veil.over(span),
        };
        let visible = veiled.as_ref().unwrap_or(span);
        let shown = self.shown.iter_mut().map(|sink| sink.span(visible));
        shown.fold(service, io::Result::and)
    }

    fn each(&self) -> impl Iterator<Item = &dyn Sink> {
        let service = self.service.iter().map(|sink| sink as &dyn Sink);
        service.chain(self.shown.iter().map(Box::as_ref))
    }

    /// Hands over memory samples.
    ///
    /// # Errors
    /// As [`take`](Self::take); so do the others.
    pub(super) fn memory(&mut self, samples: &[ProcessSample]) -> io::Result<()> {
        self.all(|sink| samples.iter().try_for_each(|sample| sink.memory(sample)))
    }

    /// Tells that calls were lost; totals.
    pub(super) fn loss(&mut self, counters: &Counters) -> io::Result<()> {
        self.all(|sink| sink.loss(counters))
    }

    /// Tells that a process died by a signal.
    pub(super) fn death(&mut self, death: &Death) -> io::Result<()> {
        self.all(|sink| sink.death(death))
    }

    /// Hands over what was read so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.all(|sink| sink.flush())
    }

    /// Tells what is told at the end. Nothing comes after it.
    pub(super) fn finish(&mut self, inlined: &[InlinedCalls], unseen: &Unseen) -> io::Result<()> {
        self.all(|sink| {
            sink.inlined(inlined)?;
            sink.unseen(unseen)?;
            sink.finish()
        })
    }

    /// Traces that were not shown because there were too many.
    pub(super) fn hidden(&self) -> u64 {
        self.each().map(Sink::hidden).sum()
    }

    /// What became of the spans, by sink.
    pub(super) fn books(&self) -> Vec<(&'static str, KindTotals)> {
        self.each()
            .map(|sink| (sink.name(), sink.books()))
            .collect()
    }

    /// Spans that were not shown for this cause.
    pub(super) fn dropped(&self, cause: Cause) -> u64 {
        let shown = self.shown.iter();
        shown.map(|sink| sink.books().dropped.of(cause)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ProbeName, ProcessIdentity};
    use std::{cell::Cell, rc::Rc};

    /// Counts what it is shown, and ends as a closed pipe does.
    struct Closing(Rc<Cell<u64>>);

    impl Sink for Closing {
        fn name(&self) -> &'static str {
            "closing"
        }
        fn books(&self) -> KindTotals {
            KindTotals {
                received: self.0.get(),
                shipped: self.0.get(),
                ..KindTotals::default()
            }
        }
        fn span(&mut self, _: &Span<'_>) -> io::Result<()> {
            self.0.set(self.0.get() + 1);
            match self.0.get() {
                3 => Err(io::ErrorKind::BrokenPipe.into()),
                _ => Ok(()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_one_can_not_take_the_others_have() {
        let shown = Rc::new(Cell::new(0));
        let intake = Intake::to_nobody();
        let closing = || -> Box<dyn Sink> { Box::new(Closing(shown.clone())) };
        let mut sinks = Sinks::new(Some(closing()), Veil::default(), Some(intake.clone()));
        sinks.shown.push(closing());
        let name = ProbeName {
            workflow: "w".into(),
            operation: "o".into(),
        };
        let process = ProcessIdentity::default();
        let span = Span {
            trace_id: [1, 1],
            span_id: [1, 1],
            parent_id: [0, 0],
            name: &name,
            status: wire::Status::Succeeded,
            started_at_ns: 0,
            duration_ns: 0,
            error_type: None,
            error_message: None,
            process: &process,
            tid: 1,
            memory: None,
            polls: None,
            ended_with_process: false,
            captured: wire::Fields::default(),
        };
        let ends = [(); 3].map(|()| sinks.deliver(&span).is_ok());
        assert_eq!(ends, [true, false, true]);
        assert_eq!((shown.get(), intake.totals().spans.received), (6, 0));
        for round in 0..2 {
            for (of, books) in sinks.books() {
                assert!(books.add_up(), "{of}");
                let pending = if of == "service" && round == 0 { 3 } else { 0 };
                assert!(round == 1 || books.pending == pending, "{of}");
                assert!(of != "service" || books.received == 3);
            }
            sinks.flush().unwrap();
        }
        assert_eq!(intake.totals().spans.received, 3);
    }
}

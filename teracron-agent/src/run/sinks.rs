//! Where spans go: each is handed to all from one place.

use std::io;

use teracron_common::End;

use crate::delivering::Intake;
use model::{ProbeName, Span};
use pipeline::output::{Output, Summary};
use planner::probe::ProbeTable;
use tracer::decode::RawSpan;
use wire::Status;

/// Spans that are handed to the process that delivers at a time.
const CHUNK: usize = 1_024;

/// What is shown, and what is sent. Neither makes whoever hands something over wait.
pub(super) struct Sinks {
    /// Terminal or JSON lines.
    pub output: Box<dyn Output>,
    /// `None`: nothing is sent.
    service: Option<Intake>,
    /// For the service, of one reading.
    to_send: Vec<wire::Span>,
}

impl Sinks {
    /// Nothing has been handed over yet.
    pub(super) fn new(output: Box<dyn Output>, service: Option<Intake>) -> Self {
        Self {
            output,
            service,
            to_send: Vec::new(),
        }
    }

    /// Counts what ended as `raw` says, and hands its span on; none is made of what is not to be told.
    ///
    /// # Errors
    /// Where it can't be shown; it is sent all the same.
    pub(super) fn take(
        &mut self,
        raw: &RawSpan<'_>,
        span: Option<Span<'_>>,
        table: &ProbeTable,
        summary: &mut Summary,
    ) -> io::Result<()> {
        summary.spans += 1;
        summary.open += u64::from(raw.end == End::Open);
        summary.traces += u64::from(raw.record.parent_id == [0, 0]);
        let Some(span) = span else {
            return Ok(());
        };
        summary.failed += u64::from(span.status == Status::Failed);
        self.deliver(&span, table.name(raw.record.probe))
    }

    /// Hands a span to everybody; `name` is its probe's.
    ///
    /// # Errors
    /// Where it can't be shown; it is sent all the same.
    fn deliver(&mut self, span: &Span<'_>, name: Option<&ProbeName>) -> io::Result<()> {
        if self.service.is_some()
            && let Some(name) = name
        {
            self.to_send.push(span.to_wire(name));
            if self.to_send.len() >= CHUNK {
                self.send();
            }
        }
        self.output.span(span)
    }

    /// Hands over what was read so far.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.send();
        self.output.flush()
    }

    /// Hands over what is to be sent.
    pub(super) fn send(&mut self) {
        if let Some(service) = &self.service
            && !self.to_send.is_empty()
        {
            service.spans(std::mem::take(&mut self.to_send));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, rc::Rc};
    use teracron_common::Counters;

    /// Counts what it is shown, and ends as a closed pipe does.
    struct Closing(Rc<Cell<u64>>);

    impl Output for Closing {
        fn span(&mut self, _: &Span<'_>) -> io::Result<()> {
            self.0.set(self.0.get() + 1);
            match self.0.get() {
                3 => Err(io::ErrorKind::BrokenPipe.into()),
                _ => Ok(()),
            }
        }
        fn loss(&mut self, _: &Counters) -> io::Result<()> {
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_can_not_be_shown_is_sent_all_the_same() {
        let shown = Rc::new(Cell::new(0));
        let intake = Intake::to_nobody();
        let output = Box::new(Closing(shown.clone()));
        let mut sinks = Sinks::new(output, Some(intake.clone()));
        let span = Span {
            trace_id: [1, 1],
            span_id: [1, 1],
            parent_id: [0, 0],
            workflow: "w",
            operation: "o",
            status: wire::Status::Succeeded,
            started_at_ns: 0,
            duration_ns: 0,
            error_type: None,
            error_message: None,
            pid: 1,
            tid: 1,
            comm: "c",
            memory: None,
            polls: None,
            captured: wire::Fields::default(),
        };
        let name = ProbeName {
            workflow: "w".into(),
            operation: "o".into(),
        };
        let ends = [(); 3].map(|()| sinks.deliver(&span, Some(&name)).is_ok());
        assert_eq!(ends, [true, true, false]);
        sinks.send();
        assert_eq!((shown.get(), intake.received()), (3, 3));
    }
}

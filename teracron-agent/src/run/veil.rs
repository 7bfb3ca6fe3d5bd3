//! What of a span is shown: the rules that hold for what is sent hold here, too.

use std::borrow::Cow;

use crate::config::Settings;
use model::{
    Span,
    error::{Error, Result},
};
use pipeline::{output::OutputMode, scrub::Rules};
use wire::Fields;

/// Takes out of spans what is not to be shown.
#[derive(Default)]
pub(super) struct Veil {
    rules: Option<Rules>,
    /// The user's program scrubs what is sent. It runs beside the process that delivers, nobody here can ask it.
    hides_all: bool,
}

impl Veil {
    /// As these settings say, whose key is not wiped yet; it is kept where something is shown alone.
    ///
    /// # Errors
    /// Where a rule makes no sense.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        if settings.output == OutputMode::None || settings.unscrubbed {
            return Ok(Self::default());
        }
        let rules = Rules::new(&settings.scrub).map_err(Error::Usage)?;
        Ok(Self {
            rules: (!rules.is_empty()).then_some(rules),
            hides_all: settings.scrub.program.is_some(),
        })
    }

    /// What to say of it at the start.
    pub(super) fn note(&self) -> Option<&'static str> {
        self.hides_all.then_some(
            "captured values and messages are not shown, because a scrubber decides on them where they are sent; \
             --unscrubbed-output shows them",
        )
    }

    /// What is shown of a span; `None`: all of it.
    pub(super) fn over<'a>(&self, span: &Span<'a>) -> Option<Span<'a>> {
        if self.hides_all {
            return Some(Span {
                captured: Fields::default(),
                error_message: None,
                ..span.clone()
            });
        }
        let rules = self.rules.as_ref()?;
        if span.captured.is_empty() && span.error_message.is_none() {
            return None;
        }
        let mut shown = span.clone();
        rules.captured(&mut shown.captured);
        let message = shown.error_message.take().map(Cow::into_owned);
        shown.error_message = message.and_then(|it| rules.message(it)).map(Cow::Owned);
        Some(shown)
    }
}

//! What an answer of the service means for the entry that was sent.

use std::time::{Duration, SystemTime};

/// The service can't make the agent wait longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Delivered,
    /// It waits: the service, or the way to it, is at fault.
    Later {
        /// What happened.
        why: String,
        /// How long the service asks to wait.
        wait: Option<Duration>,
    },
    /// It will never be taken.
    Rejected {
        /// The reason.
        why: String,
    },
}

/// Judges an answer by its status; `retry_after` is the header, `body` the beginning of what was said.
pub fn judge(status: u16, retry_after: Option<&str>, body: &str, now: SystemTime) -> Verdict {
    let mut why = match status {
        400 => "400: the service does not understand it".to_owned(),
        401 => "401: the service does not know this API key; copy it anew from the dashboard"
            .to_owned(),
        403 => "403: this API key may not send here".to_owned(),
        404 => "404: nothing receives there; is the domain right?".to_owned(),
        413 => "413: too large for the service; a smaller --trace-batch-size helps".to_owned(),
        429 => "429: too many requests".to_owned(),
        300..400 => format!("{status}: a redirect, which is not followed"),
        100..300 => {
            format!("{status} instead of 202: something else than the Teracron service answers")
        }
        _ => format!("{status}"),
    };
    let said = model::text::escape(body.trim(), 200);
    if !said.is_empty() {
        why.push_str(" (");
        why.push_str(&said);
        why.push(')');
    }
    match status {
        202 => Verdict::Delivered,
        429 | 503 => Verdict::Later {
            why,
            wait: retry_after.and_then(|value| wait(value, now)),
        },
        400..500 => Verdict::Rejected { why },
        _ => Verdict::Later { why, wait: None },
    }
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). Bounded by an hour.
pub fn wait(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_202_is_success() {
        let now = SystemTime::now();
        for status in 100..600 {
            let verdict = judge(status, Some("7"), "", now);
            match status {
                202 => assert_eq!(verdict, Verdict::Delivered),
                429 | 503 => assert!(
                    matches!(verdict, Verdict::Later { wait: Some(wait), .. } if wait.as_secs() == 7)
                ),
                400..500 => assert!(matches!(verdict, Verdict::Rejected { .. }), "{status}"),
                _ => assert!(
                    matches!(verdict, Verdict::Later { wait: None, .. }),
                    "{status}"
                ),
            }
        }
    }

    #[test]
    fn waits() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 10:00:00 GMT").unwrap();
        let seconds = |value: &str| wait(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(3600));
        assert_eq!(seconds("Wed, 25 Nov 2026 10:00:30 GMT"), Some(30));
        assert_eq!(seconds("Wed, 25 Nov 2026 09:00:00 GMT"), Some(0));
        assert_eq!(seconds("Thu, 25 Nov 2027 09:00:00 GMT"), Some(3600));
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_the_service_says_is_shown_safely() {
        let Verdict::Rejected { why } = judge(403, None, "no\u{1b}[31m entry\n", SystemTime::now())
        else {
            panic!();
        };
        assert!(!why.contains('\u{1b}') && why.contains("entry"), "{why}");
    }

    proptest! {
        #[test]
        fn never_panics(value in ".*", body in ".*", status: u16) {
            let wait = wait(&value, SystemTime::now());
            prop_assert!(wait.is_none_or(|wait| wait <= LONGEST_WAIT));
            let _ = judge(status, Some(&value), &body, SystemTime::now());
        }
    }
}

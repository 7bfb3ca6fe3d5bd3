//! The user's own scrubber: a program that gets one JSON object a line and answers one a line.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use serde_json::{Map, Value as Json};
use wire::{Fields, Limits, MAX_ERROR_MESSAGE, Span, Value, cut};

use super::child::Running;

/// A program that failed is started anew at most this often; each failure after the first doubles the time.
const RESTART: Duration = Duration::from_secs(1);
/// Up to this.
const MAX_RESTART: Duration = Duration::from_secs(60);

/// A running program; started anew where it fails.
pub struct Program {
    command: Vec<String>,
    /// Variables that it sees.
    variables: Vec<(String, OsString)>,
    timeout: Duration,
    running: Option<Running>,
    started: Instant,
    /// From one start to the next.
    pause: Duration,
    /// Why the last question has no answer.
    failing: Option<String>,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(
        command: &[String],
        variables: Vec<(String, OsString)>,
        timeout: Duration,
    ) -> Result<Self, String> {
        Ok(Self {
            command: command.to_vec(),
            timeout,
            running: Some(Running::start(command, &variables)?),
            variables,
            started: Instant::now(),
            pause: RESTART,
            failing: None,
        })
    }

    /// Shows it a span's data and takes its answer; `false` where there is none in time, or
    /// nonsense.
    pub fn scrub(&mut self, span: &mut Span) -> bool {
        if self.running.is_none() && self.started.elapsed() >= self.pause {
            self.started = Instant::now();
            match Running::start(&self.command, &self.variables) {
                Ok(running) => self.running = Some(running),
                Err(why) => self.failed(why),
            }
        }
        let Some(running) = &mut self.running else {
            return false;
        };
        let answered = running
            .ask(&question(span), self.timeout)
            .and_then(|answer| take(&answer, span).ok_or_else(|| "nonsense".to_owned()));
        match answered {
            Ok(()) => {
                self.pause = RESTART;
                self.failing = None;
                true
            }
            Err(why) => {
                self.failed(why);
                false
            }
        }
    }

    /// Why it does not answer at present.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    fn failed(&mut self, why: String) {
        // It may answer this question later: then every answer would be another's.
        self.running = None;
        if self.failing.replace(why).is_some() {
            self.pause = (self.pause * 2).min(MAX_RESTART);
        }
    }
}

fn question(span: &Span) -> Vec<u8> {
    use wire::write_fields;
    let mut line = b"{\"metadata\":".to_vec();
    write_fields(&mut line, &span.metadata);
    line.extend_from_slice(b",\"captured_params\":");
    write_fields(&mut line, &span.captured_params);
    line.extend_from_slice(b",\"error_message\":");
    let message = serde_json::to_vec(&span.error_message).unwrap_or_else(|_| b"null".to_vec());
    line.extend_from_slice(&message);
    line.extend_from_slice(b"}\n");
    line
}

fn take(answer: &[u8], span: &mut Span) -> Option<()> {
    let Ok(Json::Object(answer)) = serde_json::from_slice::<Json>(answer) else {
        return None;
    };
    let metadata = fields(&answer, "metadata", Limits::METADATA)?;
    let captured_params = fields(&answer, "captured_params", Limits::CAPTURED)?;
    let error_message = match answer.get("error_message") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) => {
            let mut text = text.clone();
            cut(&mut text, MAX_ERROR_MESSAGE);
            Some(text)
        }
        Some(_) => return None,
    };
    (span.metadata, span.captured_params) = (metadata, captured_params);
    span.error_message = error_message;
    Some(())
}

fn fields(answer: &Map<String, Json>, name: &str, limits: Limits) -> Option<Fields> {
    let mut fields = Fields::default();
    let object = match answer.get(name) {
        None | Some(Json::Null) => return Some(fields),
        Some(Json::Object(object)) => object,
        Some(_) => return None,
    };
    for (key, value) in object {
        let value = match value {
            Json::String(text) => Value::Text(text.clone()),
            Json::Bool(flag) => Value::Flag(*flag),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Whole(whole),
                None => Value::Number(number.as_f64()?),
            },
            // The wire has no room for others.
            _ => continue,
        };
        fields.set(key.clone(), value, limits);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::ScrubSettings;

    fn span() -> Span {
        let mut span = crate::batch::empty_span();
        span.error_message = Some("é".into());
        span.metadata
            .set("a", Value::Text("x".into()), Limits::METADATA);
        span
    }

    fn ask(script: &str) -> (bool, Span) {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut program = Program::start(&command, Vec::new(), Duration::from_secs(5)).unwrap();
        let mut span = span();
        (program.scrub(&mut span), span)
    }

    #[test]
    fn the_answer_counts() {
        let (answered, same) = ask("cat");
        assert!(answered);
        assert_eq!(same, span());
        let (answered, changed) =
            ask(r#"read line; echo '{"metadata":{"b":1},"captured_params":null}'; cat"#);
        assert!(answered);
        assert_eq!(changed.metadata.get("b"), Some(&Value::Whole(1)));
        assert_eq!(changed.metadata.len(), 1);
        assert_eq!(changed.error_message, None);
    }

    #[test]
    fn nonsense_is_no_answer() {
        for script in [
            "exit 1",
            "echo nonsense",
            "read line; echo '[1]'; cat",
            "read line; echo '{\"metadata\":3}'; cat",
            "read line; echo '{\"error_message\":3}'; cat",
            "read line; head -c 2000000 /dev/zero; cat",
        ] {
            assert!(!ask(script).0, "{script}");
        }
    }

    #[test]
    fn silence_is_no_answer_and_the_next_program_gets_a_chance() {
        let command = ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned);
        let mut program = Program::start(&command, Vec::new(), Duration::from_millis(20)).unwrap();
        assert!(!program.scrub(&mut span()));
        assert!(program.running.is_none());
        assert!(program.failing().unwrap().contains("no answer in 20 ms"));
        assert!(!program.scrub(&mut span()), "not at once");
        // Those that fail one after another get their chances ever more rarely.
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(program.pause.as_secs());
            program.started -= program.pause;
            assert!(!program.scrub(&mut span()));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        program.started -= MAX_RESTART;
        program.command = vec!["/bin/cat".to_owned()];
        program.timeout = Duration::from_secs(5);
        assert!(program.scrub(&mut span()));
        assert!(program.failing().is_none());
        assert_eq!(program.pause, RESTART);
        program.command = vec!["/nowhere/cat".to_owned()];
        program.failed("again".to_owned());
        program.started -= RESTART;
        assert!(!program.scrub(&mut span()));
        assert!(program.failing().unwrap().contains("/nowhere/cat: "));
    }

    /// Asks a program that answers with one text.
    fn told(script: &str, variables: &[&str]) -> String {
        let script = format!(
            r#"read line; printf '{{"error_message":"%s"}}\n' "$({script} | tr '\n' ' ')"; cat"#
        );
        let command = ["/bin/sh", "-c", &script].map(str::to_owned);
        let settings = ScrubSettings {
            variables: variables.iter().map(|name| (*name).to_owned()).collect(),
            ..ScrubSettings::default()
        };
        let mut program =
            Program::start(&command, settings.visible(), Duration::from_secs(5)).unwrap();
        let mut span = span();
        assert!(program.scrub(&mut span), "{:?}", program.failing());
        span.error_message.unwrap()
    }

    #[test]
    fn it_sees_the_variables_and_descriptors_that_it_is_given_and_no_others() {
        use std::os::fd::AsRawFd as _;
        assert!(std::env::var("HOME").is_ok());
        let seen = told("env", &[]);
        assert!(seen.contains("PATH=") && !seen.contains("HOME="), "{seen}");
        let seen = told("env", &["HOME", "NO_SUCH_VARIABLE"]);
        assert!(seen.contains("HOME=/"), "{seen}");
        assert!(!seen.contains("NO_SUCH"), "{seen}");
        // As one that our parent left open.
        let inherited = std::fs::File::open("/dev/null").unwrap();
        let inherited = rustix::io::fcntl_dupfd_cloexec(&inherited, 200).unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(inherited.as_raw_fd(), 200);
        let seen = told("ls /proc/self/fd", &[]);
        assert!(
            seen.starts_with("0 1 2 ") && !seen.contains("200"),
            "{seen}"
        );
    }

    #[test]
    fn what_it_started_ends_with_it() {
        // The child keeps the pipes, and tells its number.
        let script = "sleep 1000 & read line; echo '{\"error_message\":\"'$!'\"}'; cat";
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut program = Program::start(&command, Vec::new(), Duration::from_secs(5)).unwrap();
        let mut span = span();
        assert!(program.scrub(&mut span));
        let child = span.error_message.unwrap();
        let path = format!("/proc/{child}/stat");
        assert!(std::path::Path::new(&path).exists());
        drop(program);
        // Killed at once; whoever adopted it may still have to take notice.
        let until = Instant::now() + Duration::from_secs(5);
        while let Ok(stat) = std::fs::read_to_string(&path)
            && !stat.contains(") Z")
            && !stat.contains(") X")
        {
            assert!(Instant::now() < until, "{stat}");
            std::thread::yield_now();
        }
    }
}

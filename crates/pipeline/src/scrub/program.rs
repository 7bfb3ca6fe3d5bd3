//! The user's own scrubber: a program that gets one JSON object a line and answers one a line.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value as Json};
use wire::{Fields, Limits, MAX_ERROR_MESSAGE, Span, Value, cut};

/// An answer longer than this is nonsense.
const MAX_ANSWER: u64 = 1 << 20;
/// A program that failed is started anew at most this often.
const RESTART: Duration = Duration::from_secs(1);

/// A running program; started anew where it fails.
pub struct Program {
    command: Vec<String>,
    timeout: Duration,
    running: Option<Running>,
    started: Instant,
}

struct Running {
    child: Child,
    questions: SyncSender<Vec<u8>>,
    answers: Receiver<Vec<u8>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(command: &[String], timeout: Duration) -> Result<Self, String> {
        Ok(Self {
            command: command.to_vec(),
            timeout,
            running: Some(Running::start(command)?),
            started: Instant::now(),
        })
    }

    /// Shows it a span's data and takes its answer; `false` where there is none in time, or
    /// nonsense.
    pub fn scrub(&mut self, span: &mut Span) -> bool {
        if self.running.is_none() && self.started.elapsed() >= RESTART {
            self.started = Instant::now();
            self.running = Running::start(&self.command).ok();
        }
        let Some(running) = &mut self.running else {
            return false;
        };
        let answered = running
            .ask(question(span), self.timeout)
            .and_then(|answer| take(&answer, span));
        if answered.is_none() {
            // It may answer this question later: then every answer would be another's.
            self.running = None;
        }
        answered.is_some()
    }
}

impl Running {
    fn start(command: &[String]) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("scrubber: no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_remove("TERACRON_SCRUB_HASH_KEY")
            .spawn()
            .map_err(|error| format!("scrubber {}: {error}", model::text::shown(program)))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("scrubber: no pipes".to_owned());
        };
        let (questions, asked) = sync_channel::<Vec<u8>>(1);
        let (answer, answers) = sync_channel(1);
        // A program that does not read would block whoever writes: threads of their own.
        let writing = thread::Builder::new().spawn(move || write_all(stdin, &asked));
        let reading = thread::Builder::new().spawn(move || {
            let mut lines = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                let read = lines.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut line);
                if !matches!(read, Ok(1..))
                    || line.pop() != Some(b'\n')
                    || answer.send(line).is_err()
                {
                    return;
                }
            }
        });
        let running = Self {
            child,
            questions,
            answers,
        };
        match writing.and(reading) {
            Ok(_) => Ok(running),
            Err(error) => Err(format!("scrubber: no thread for it: {error}")),
        }
    }

    fn ask(&mut self, question: Vec<u8>, timeout: Duration) -> Option<Vec<u8>> {
        // What was said without being asked is no answer.
        if self.answers.try_recv().is_ok() {
            return None;
        }
        self.questions.try_send(question).ok()?;
        self.answers.recv_timeout(timeout).ok()
    }
}

fn write_all(mut stdin: ChildStdin, asked: &Receiver<Vec<u8>>) {
    while let Ok(question) = asked.recv() {
        if stdin
            .write_all(&question)
            .and_then(|()| stdin.flush())
            .is_err()
        {
            return;
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

    fn span() -> Span {
        let mut span = crate::batch::empty_span();
        span.error_message = Some("é".into());
        span.metadata
            .set("a", Value::Text("x".into()), Limits::METADATA);
        span
    }

    fn ask(script: &str) -> (bool, Span) {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut program = Program::start(&command, Duration::from_secs(5)).unwrap();
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
        let mut program = Program::start(&command, Duration::from_millis(20)).unwrap();
        assert!(!program.scrub(&mut span()));
        assert!(program.running.is_none());
        assert!(!program.scrub(&mut span()), "not at once");
        program.started -= RESTART;
        program.command = vec!["/bin/cat".to_owned()];
        program.timeout = Duration::from_secs(5);
        assert!(program.scrub(&mut span()));
    }
}

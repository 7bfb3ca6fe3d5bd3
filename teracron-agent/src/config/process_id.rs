//! Process ids as people give them: a name is none, but says what was meant.

use std::fs;

use tracer::process::{all_pids, comm_of};

use super::Wrong;
use model::text;

/// Processes that are named to who gave a name.
const SUGGESTIONS: usize = 5;
/// TASK_COMM_LEN (include/linux/sched.h) without the final zero: longer names are cut by the kernel.
const COMM: usize = 15;

/// Reads the id of a process.
///
/// # Errors
/// What is wrong, with the ids of the processes that are called so.
pub fn read(given: &str) -> Result<u32, Wrong> {
    let text = given.trim();
    match text.parse::<u32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ if text.is_empty() => Err(Wrong::wanted(
            "the id of a process is wanted: `pgrep NAME` finds it",
        )),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 40 => {
            Err(Wrong::Unreadable(format!("{text} is not a process id")))
        }
        _ => Err(Wrong::Unreadable(explain(text))),
    }
}

fn explain(name: &str) -> String {
    let shown = text::escape(name, 40);
    let mut called: Vec<u32> = all_pids()
        .into_iter()
        .filter(|pid| is_called(*pid, name))
        .collect();
    called.sort_unstable();
    let ids: Vec<String> = called
        .iter()
        .take(SUGGESTIONS)
        .map(u32::to_string)
        .collect();
    match (ids.as_slice(), called.len()) {
        ([], _) => format!(
            "{shown} is a name, no process id, and no process is called so: `pgrep -f {shown}` looks into command lines"
        ),
        ([one], _) => {
            format!("{shown} is a name, no process id: the process that is called so is {one}")
        }
        (ids, count) if count > ids.len() => format!(
            "{shown} is a name, no process id: {count} processes are called so, {} among them (`pgrep {shown}` lists all)",
            ids.join(", ")
        ),
        (ids, _) => format!(
            "{shown} is a name, no process id: processes that are called so are {}",
            ids.join(", ")
        ),
    }
}

fn is_called(pid: u32, name: &str) -> bool {
    let cut: String = name.chars().take(COMM).collect();
    let comm = comm_of(pid);
    // A name that the kernel has cut is compared as far as it goes.
    (!comm.is_empty() && comm == cut)
        || fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| path.file_name().is_some_and(|file| file == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_processes_have_them() {
        assert_eq!(read(" 12 "), Ok(12));
        let own = fs::read_link("/proc/self/exe").unwrap();
        let own = own.file_name().unwrap().to_str().unwrap();
        let said = read(own).unwrap_err().to_string();
        let pid = std::process::id().to_string();
        assert!(said.contains(&pid), "{said}");
        let said = read("no-such-program-here").unwrap_err().to_string();
        assert!(said.contains("pgrep -f no-such-program-here"), "{said}");
        for wrong in ["", "0", "-4", "99999999999", "a\x1b[31m"] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(!said.contains('\x1b'), "{said:?}");
        }
    }
}

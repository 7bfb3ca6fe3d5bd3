//! docs/survival.md.

use std::{collections::BTreeMap, fmt::Write as _, process::Command};

use super::{
    conditions::{Cell, Condition, Outcome},
    peers::Peer,
    targets::Target,
};
use crate::shell::{output, root};

/// What was found about one target.
#[derive(Default)]
pub(super) struct Row {
    pub cells: BTreeMap<Condition, Cell>,
    pub bpftrace: Option<Peer>,
    pub perf: Option<Peer>,
    /// Why there is nothing.
    pub failed: Option<String>,
}

/// A cell in a word or two.
pub(super) fn brief(cell: &Cell) -> String {
    match &cell.outcome {
        Outcome::Lived(verdict) if verdict.wrong.is_empty() => {
            format!("✓ {}", thousands(verdict.equal))
        }
        Outcome::Lived(verdict) => {
            let how = if verdict.told { "told" } else { "not told" };
            format!(
                "~ {} of {}, {how}",
                thousands(verdict.equal),
                thousands(verdict.asked)
            )
        }
        Outcome::Refused(_) => "refused".to_owned(),
        Outcome::Harmed(text) => format!("**✗ {}**", cut(text, 48)),
        Outcome::Failed(text) => format!("? {}", cut(text, 48)),
    }
}

/// What is to be said about it below the table.
fn deviation(cell: &Cell) -> Option<String> {
    let mut parts = match &cell.outcome {
        Outcome::Lived(verdict) => [&verdict.wrong[..], &verdict.notes].concat(),
        Outcome::Refused(text) | Outcome::Harmed(text) | Outcome::Failed(text) => {
            vec![text.clone()]
        }
    };
    parts.extend(cell.notes.iter().cloned());
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Lived(text) => text.clone(),
        Peer::Harmed(text) => format!("**✗ {}**", cut(text, 48)),
        Peer::NotAttached(text) => format!("did not attach: {}", cut(text, 60)),
    }
}

fn cut(text: &str, most: usize) -> String {
    let text = text.replace('|', "/").replace(['\n', '`'], " ");
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most).chain("…".chars()).collect()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A sentence without the words that have a digit.
fn unnumbered(text: &str) -> String {
    text.split(' ')
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .collect()
}

/// The first line that a command prints.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let said = Command::new(program).args(arguments).output().ok()?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(str::to_owned)
}

const INTRODUCTION: &str = include_str!("introduction.md");

/// The whole page.
pub(super) fn page(
    agent: &str,
    minutes: f64,
    rows: &[(&'static Target, Row)],
    leaked: usize,
) -> String {
    let mut page = INTRODUCTION.to_owned();
    let commit = output(
        Command::new("git")
            .current_dir(root())
            .args(["describe", "--always", "--dirty"]),
    );
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"])).unwrap_or_default();
    let _ = write!(
        page,
        "\n## The run\n\n{}, commit {}, {}, Linux {}, {:.0} minutes.\nBeside it: ",
        date.trim(),
        commit.unwrap_or_default().trim(),
        first_line(agent, &["--version"]).unwrap_or_default(),
        first_line("uname", &["-rm"]).unwrap_or_default(),
        minutes,
    );
    let versions: Vec<String> = [
        ("gcc", &["--version"][..]),
        ("rustc", &["--version"]),
        ("/usr/bin/python3", &["--version"]),
        ("node", &["--version"]),
        ("java", &["-version"]),
        ("redis-server", &["--version"]),
        ("nginx", &["-v"]),
        ("psql", &["--version"]),
        ("gdb", &["--version"]),
        ("strace", &["--version"]),
        ("bpftrace", &["--version"]),
        ("perf", &["--version"]),
    ]
    .iter()
    .filter_map(|(program, arguments)| {
        let line = first_line(program, arguments)?;
        Some(if *program == "node" {
            format!("node {line}")
        } else {
            line
        })
    })
    .collect();
    page.push_str(&versions.join("; "));
    page.push_str(".\n\n| |");
    for condition in Condition::ALL {
        let _ = write!(page, " {} |", condition.title());
    }
    page.push_str(" bytes changed in strangers | bpftrace alone | perf alone |\n|");
    page.push_str(&" --- |".repeat(Condition::ALL.len() + 4));
    page.push('\n');
    for (target, row) in rows {
        let _ = write!(page, "| {} |", target.title);
        for condition in Condition::ALL {
            let text = row.cells.get(&condition).map_or_else(String::new, brief);
            let _ = write!(page, " {text} |");
        }
        // Where bpftrace is beside the agent, its own breakpoints are in strangers.
        let strangers = |its: bool| {
            let cells = row.cells.iter();
            cells
                .filter(|(condition, _)| (**condition == Condition::Bpftrace) == its)
                .filter_map(|(_, cell)| cell.strangers)
                .max()
        };
        let strangers = match (strangers(false), strangers(true)) {
            (Some(ours), Some(theirs)) if theirs > 0 => {
                format!("{} ({} by bpftrace)", thousands(ours), thousands(theirs))
            }
            (ours, _) => ours.map_or_else(String::new, thousands),
        };
        let peers =
            [&row.bpftrace, &row.perf].map(|one| one.as_ref().map_or_else(String::new, peer));
        let _ = writeln!(page, " {strangers} | {} | {} |", peers[0], peers[1]);
    }
    let _ = write!(
        page,
        "\nBreakpoints of the agent's that the kernel could not take out of its books (\"leaking uprobe\" in its log): {leaked}.\n"
    );
    page.push_str("\n## What deviates, and what is to be known\n\n");
    for (target, row) in rows {
        if let Some(text) = &row.failed {
            let _ = writeln!(page, "- {}: {}", target.title, cut(text, 600));
        }
        // Refusals often differ in process ids and addresses only: then the first stands for all.
        let mut told: Vec<(Option<String>, String, Vec<&str>)> = Vec::new();
        for (condition, cell) in &row.cells {
            let Some(text) = deviation(cell) else {
                continue;
            };
            let refusal = matches!(cell.outcome, Outcome::Refused(_)).then(|| unnumbered(&text));
            let known = told
                .iter_mut()
                .find(|(known, ..)| refusal.is_some() && *known == refusal);
            match known {
                Some((_, _, conditions)) => conditions.push(condition.title()),
                None => told.push((refusal, text, vec![condition.title()])),
            }
        }
        for (_, text, conditions) in told {
            let conditions = conditions.join("; ");
            let _ = writeln!(
                page,
                "- {}, {conditions}: {}",
                target.title,
                cut(&text, 600)
            );
        }
        for (name, one) in [("bpftrace", &row.bpftrace), ("perf", &row.perf)] {
            if let Some(Peer::Harmed(text) | Peer::NotAttached(text)) = one {
                let _ = writeln!(page, "- {}, {name} alone: {}", target.title, cut(text, 300));
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{cut, thousands, unnumbered};

    #[test]
    fn what_is_shown_is_short_and_fits_a_table() {
        assert_eq!(cut("a|b\nc", 9), "a/b c");
        assert_eq!(cut("abcdef", 3), "abc…");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(12), "12");
        let text = |id, at| unnumbered(&format!("process {id} has no code at {at:#x}"));
        assert_eq!(text(7, 0xab), text(12, 0x1c0));
        assert_ne!(text(7, 0xab), unnumbered("process 7 has code at 0xab"));
    }
}

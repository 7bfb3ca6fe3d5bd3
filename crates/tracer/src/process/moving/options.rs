//! How a process was started, as far as it says whether text is moved. Of the environment nothing else is kept.

use std::{fs::File, io::Read as _};

use zeroize::Zeroizing;

use crate::process::face;
use image::foreign::LIMITS;

/// What the command line and the environment say.
#[derive(Debug, Default)]
pub(super) struct Start {
    arguments: Vec<String>,
    /// `NODE_OPTIONS`.
    node_options: String,
    /// File names in `LD_PRELOAD`.
    pub preloads: Vec<String>,
    /// `HUGETLB_*`.
    hugetlb: Vec<(String, String)>,
}

impl Start {
    /// Of a process; what can't be read is as if it were not there.
    pub(super) fn of(pid: u32) -> Self {
        let command_line = read(pid, "cmdline", LIMITS.command_line);
        let environment = read(pid, "environ", LIMITS.environment);
        Self::from(&command_line, &environment)
    }

    fn from(command_line: &[u8], environment: &[u8]) -> Self {
        let mut this = Self {
            arguments: command_line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            ..Self::default()
        };
        for entry in environment.split(|byte| *byte == 0) {
            let Some(at) = entry.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, value) = entry.split_at(at);
            let text = || String::from_utf8_lossy(value.get(1..).unwrap_or_default()).into_owned();
            match name {
                b"NODE_OPTIONS" => this.node_options = text(),
                b"LD_PRELOAD" => {
                    let list = text();
                    // ld.so(8): separated by spaces or colons.
                    let paths = list.split([' ', ':']);
                    let names = paths.filter_map(|path| path.rsplit('/').next());
                    this.preloads.extend(names.map(str::to_owned));
                }
                _ if name.starts_with(b"HUGETLB_") => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    this.hugetlb.push((name, text()));
                }
                _ => {}
            }
        }
        this
    }

    /// Node's option, where it is in force: `--use-largepages=on` or `silent`, underscores for hyphens, the
    /// value apart or not.
    pub(super) fn node_option(&self) -> Option<&'static str> {
        let own = self.arguments.iter().map(String::as_str);
        let inherited = self
            .node_options
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']));
        let given = last_value(own, "--use-largepages")
            .or_else(|| last_value(inherited, "--use-largepages"))?;
        (given != "off").then_some("--use-largepages")
    }

    /// Whether HHVM was told to leave its text where it is (`-vEval.MaxHotTextHugePages=0`,
    /// `-dhhvm.max_hot_text_huge_pages=0`).
    pub(super) fn hhvm_leaves_text_alone(&self) -> bool {
        self.arguments.iter().any(|argument| {
            let plain: String = argument
                .chars()
                .filter(|character| !matches!(character, '_' | ' '))
                .map(|character| character.to_ascii_lowercase())
                .collect();
            plain.ends_with("maxhottexthugepages=0")
        })
    }

    /// PHP's setting, where it was given at the start (`-d opcache.huge_code_pages=1`).
    pub(super) fn php_option(&self) -> Option<&'static str> {
        const NAME: &str = "opcache.huge_code_pages";
        let given = self.arguments.iter().any(|argument| {
            argument
                .trim_start_matches("-d")
                .trim()
                .strip_prefix(NAME)
                .is_some_and(|value| {
                    let value = value.trim_start_matches('=').trim_matches(['"', '\'']);
                    !matches!(
                        value.to_ascii_lowercase().as_str(),
                        "0" | "off" | "no" | "false"
                    )
                })
        });
        given.then_some(NAME)
    }

    /// Whether libhugetlbfs was told to leave the text where it is: it is used for the heap, too.
    pub(super) fn leaves_text_alone(&self) -> bool {
        self.hugetlb
            .iter()
            .any(|(name, value)| name == "HUGETLB_ELFMAP" && value == "no")
    }
}

/// The last value that was given to an option.
fn last_value<'a>(words: impl Iterator<Item = &'a str>, option: &str) -> Option<String> {
    let mut found = None;
    let mut is_next = false;
    for word in words {
        if is_next {
            found = Some(word.to_owned());
        }
        is_next = false;
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if name.starts_with("--") && name.replace('_', "-") == option {
            match value {
                Some(value) => found = Some(value.to_owned()),
                None => is_next = true,
            }
        }
    }
    found
}

/// A file of a process, as far as is looked at. It may hold secrets: the copy is wiped.
fn read(pid: u32, name: &str, most: u64) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let Ok(file) = File::open(format!("/proc/{}/{name}", face(pid))) {
        // What could be read counts.
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(arguments: &str, options: &str) -> bool {
        let arguments = arguments.replace(' ', "\0");
        let environment = format!("SECRET=x\0NODE_OPTIONS={options}\0PATH=/bin");
        Start::from(arguments.as_bytes(), environment.as_bytes())
            .node_option()
            .is_some()
    }

    #[test]
    fn nodes_option() {
        for (arguments, options) in [
            ("node --use-largepages=on a.js", ""),
            ("node --use_largepages=silent a.js", ""),
            ("node --use-largepages on a.js", ""),
            ("node --use-largepages=off --use-largepages=on a.js", ""),
            ("node a.js", "--use-largepages=on"),
            (
                "node a.js",
                "--max-old-space-size=100 --use-largepages=silent",
            ),
            ("node a.js", "\"--use-largepages=on\""),
        ] {
            assert!(node(arguments, options), "{arguments}; {options}");
        }
        for (arguments, options) in [
            ("node a.js", ""),
            ("node --use-largepages=off a.js", ""),
            ("node --use-largepages=off a.js", "--use-largepages=on"),
            ("node --use-largepages-not=on a.js", ""),
            ("node use-largepages=on", "--max-old-space-size=100"),
        ] {
            assert!(!node(arguments, options), "{arguments}; {options}");
        }
    }

    #[test]
    fn other_options() {
        let of = |arguments: &str, environment: &str| {
            Start::from(
                arguments.replace(' ', "\0").as_bytes(),
                environment.replace(' ', "\0").as_bytes(),
            )
        };
        assert!(
            of("php -d opcache.huge_code_pages=1 a.php", "")
                .php_option()
                .is_some()
        );
        assert!(
            of("php -dopcache.huge_code_pages a.php", "")
                .php_option()
                .is_some()
        );
        assert!(
            of("php -d opcache.huge_code_pages=Off a.php", "")
                .php_option()
                .is_none()
        );
        assert!(of("php a.php", "").php_option().is_none());
        assert!(of("hhvm -vEval.MaxHotTextHugePages=0", "").hhvm_leaves_text_alone());
        assert!(of("hhvm -dhhvm.max_hot_text_huge_pages=0", "").hhvm_leaves_text_alone());
        assert!(!of("hhvm -vEval.MaxHotTextHugePages=80", "").hhvm_leaves_text_alone());
        let start = of(
            "a",
            "A=b LD_PRELOAD=/x/liblppreload.so:libz.so HUGETLB_ELFMAP=no C=d",
        );
        assert_eq!(start.preloads, ["liblppreload.so", "libz.so"]);
        assert!(start.leaves_text_alone());
        // Nothing else was kept.
        assert_eq!(start.hugetlb.len(), 1);
    }

    proptest! {
        #[test]
        fn anything_may_stand_there(
            arguments in proptest::collection::vec(any::<u8>(), 0..200),
            environment in "(NODE_OPTIONS|LD_PRELOAD|HUGETLB_X|=|\\PC{0,9}|\u{0}){0,20}",
        ) {
            let start = Start::from(&arguments, environment.as_bytes());
            let _ = (start.node_option(), start.php_option(), start.hhvm_leaves_text_alone());
        }
    }
}

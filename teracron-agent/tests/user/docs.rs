//! What the pages tell people to type means something to this agent, and each link leads somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use teracron_agent::{cli::Cli, config::ConfigFile};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All pages: path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let folders = [root(), root().join("docs")];
    let pages: Vec<(PathBuf, String)> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(pages.len() > 10);
    pages
}

/// The words of a line, as a shell without variables would have them: quotes, and comments behind `#`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for character in line.chars() {
        match (character, quote) {
            (_, Some(end)) if character == end => quote = None,
            (_, Some(_)) => word.push(character),
            ('\'' | '"', None) => (quote, begun) = (Some(character), true),
            ('#', None) if word.is_empty() && !begun => break,
            (_, None) if character.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => word.push(character),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Lines of code: indented by four, outside lists and fences.
fn commands(text: &str) -> impl Iterator<Item = Vec<String>> {
    let mut fenced = false;
    text.lines()
        .filter(move |line| {
            fenced ^= line.starts_with("```");
            !fenced
        })
        .filter_map(|line| line.strip_prefix("    "))
        .map(words)
}

#[test]
fn commands_are_understood() {
    let mut read = 0;
    for (path, text) in pages() {
        for mut words in commands(&text) {
            if words.first().is_some_and(|word| word == "sudo") {
                words.remove(0);
            }
            let Some(program) = words.first() else {
                continue;
            };
            // What stands for something, or for several, is no command.
            let is_pattern = words.iter().any(|word| word.contains(['…', '|', '[']));
            let own = program.rsplit('/').next() == Some("teracron-agent");
            if own && !is_pattern && !words.iter().any(|word| word == "and") {
                // Behind two spaces and more the synopsis explains.
                let known = Cli::read(&words).or_else(|error| match words.get(..2) {
                    Some(first) => Cli::read(first),
                    None => Err(error),
                });
                assert!(known.is_ok(), "{}: {words:?}", path.display());
                read += 1;
            }
        }
    }
    assert!(read >= 6, "{read}");
}

#[test]
fn tasks_exist() {
    let source = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    for (path, text) in pages() {
        for words in commands(&text) {
            if let [cargo, xtask, task, ..] = words.as_slice()
                && (cargo == "cargo" && xtask == "xtask")
            {
                // The variant of the command's enumeration: `test-kernels` is `TestKernels`.
                let variant: String = task
                    .split('-')
                    .map(|part| part[..1].to_uppercase() + &part[1..])
                    .collect();
                let known = [format!("    {variant}"), format!("    {variant} {{")];
                assert!(
                    source.lines().any(|line| known
                        .iter()
                        .any(|known| line.trim_end_matches([',', '(']).starts_with(known))),
                    "{}: cargo xtask {task}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn configurations_are_understood() {
    let mut read = 0;
    for (path, text) in pages() {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if let Err(error) = ConfigFile::parse(block, "page") {
                panic!("{}: {error}", path.display());
            }
            read += 1;
        }
    }
    assert!(read >= 1);
}

/// What the packaged file offers, commented out, can be taken.
#[test]
fn the_packaged_configuration_can_be_used() {
    let text = fs::read_to_string(root().join("packaging/agent.toml")).unwrap();
    let offered: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    assert_ne!(offered.join("\n"), text.trim_end());
    if let Err(error) = ConfigFile::parse(&offered.join("\n"), "packaging/agent.toml") {
        panic!("{error}");
    }
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in pages() {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with('#') || link.contains("://") {
                continue;
            }
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}

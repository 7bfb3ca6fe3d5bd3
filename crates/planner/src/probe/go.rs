//! Go's runtime: where panics start and end, and what types are called.

use std::{collections::HashMap, fs::File, sync::Arc};

use serde::{Deserialize, Serialize};
use teracron_common::RecoverCookie;

use super::{Program, Site, UnwinderSites, unwinder::entry_site};
use crate::find::Functions;
use image::{
    FileKey, Image,
    debug::DebugInfo,
    symbol::{Elf, GoProgram, Segment, Starts},
};
use sites::{Accessed, Context, ExitPlan, KernelRules, ReturnProbe};

/// A Go program, to read names of types from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "GoFacts", into = "GoFacts")]
pub(crate) struct GoFile {
    elf: Arc<Elf>,
    /// Where it was sent from elsewhere, it is opened later.
    file: Option<Arc<File>>,
    key: FileKey,
}

/// What is sent of one.
#[derive(Serialize, Deserialize)]
struct GoFacts {
    segments: Vec<Segment>,
    go: Option<GoProgram>,
    key: FileKey,
}

impl From<GoFile> for GoFacts {
    fn from(file: GoFile) -> Self {
        Self {
            segments: file.elf.segments.clone(),
            go: file.elf.go.clone(),
            key: file.key,
        }
    }
}

impl From<GoFacts> for GoFile {
    fn from(facts: GoFacts) -> Self {
        Self {
            // Names of types are all that is read later.
            elf: Arc::new(Elf {
                segments: facts.segments,
                go: facts.go,
                ..Elf::default()
            }),
            file: None,
            key: facts.key,
        }
    }
}

impl GoFile {
    /// Of a file.
    pub(crate) fn new(module: &Image, elf: &Elf) -> Self {
        let facts = GoFacts {
            segments: elf.segments.clone(),
            go: elf.go.clone(),
            key: module.key,
        };
        Self {
            file: Some(module.file.clone()),
            ..facts.into()
        }
    }

    /// Gives it its file where it has none; answers whether it has one.
    pub(crate) fn open(&mut self, file_of: &impl Fn(FileKey) -> Option<Arc<File>>) -> bool {
        if self.file.is_none() {
            self.file = file_of(self.key);
        }
        self.file.is_some()
    }

    /// The name of the type at an address of a process that has files with types loaded there (counted from their own
    /// addresses).
    pub(crate) fn type_name(&self, loaded: &[(FileKey, u64)], address: u64) -> Option<String> {
        let (_, bias) = loaded.iter().find(|(key, _)| *key == self.key)?;
        self.elf
            .go_type_name(self.file.as_ref()?, address.wrapping_sub(*bias))
    }
}

/// Errors whose text is known to be their string: what `errors.New` and `fmt.Errorf` make (errors/errors.go,
/// fmt/errors.go).
const PLAIN_ERRORS: [&str; 3] = ["*errors.errorString", "*fmt.wrapError", "*fmt.wrapErrors"];

/// Addresses of types whose values are errors with a text, and where it lies in them, as the kernel side
/// wants it: of the types whose `Error` is seen to give back that very string. Of others a field may be anything, a
/// password as well, and is nothing that anybody asked for.
pub fn error_texts(module: &Image, elf: &Elf, debug: &DebugInfo) -> Vec<(u64, u64)> {
    let Some(types) = elf.go.as_ref().and_then(|go| go.types) else {
        return Vec::new();
    };
    let starts = Starts::of(elf, &module.file);
    let functions = Functions::of(elf);
    let mut names: HashMap<String, Option<u64>> = PLAIN_ERRORS
        .iter()
        .map(|name| ((*name).to_owned(), None))
        .collect();
    for symbol in &elf.symbols {
        let Some(receiver) = symbol.name.strip_suffix(".Error") else {
            continue;
        };
        let Ok(code) = functions.of_symbol(symbol).code(&starts) else {
            continue;
        };
        // `errors.(*errorString)` is the type `*errors.errorString`, and that has the methods of
        // `errors.errorString`, too.
        match (receiver.split_once(".(*"), sites::accessed(&code)) {
            (Some((package, name)), Some(Accessed::Behind(offset))) => {
                let name = format!("*{package}.{}", name.trim_end_matches(')'));
                names.entry(name).or_insert(Some(offset));
            }
            // Words and bytes agree where all before are whole words: else another place is expected than there is.
            (None, Some(Accessed::Words(word))) => {
                let offset = Some(word as u64 * 8);
                names.entry(receiver.to_owned()).or_insert(offset);
                names.entry(format!("*{receiver}")).or_insert(offset);
            }
            _ => {}
        }
    }
    match debug.go_error_texts(&names, types) {
        Ok(texts) => texts,
        Err(error) => {
            log::debug!("no texts of Go's errors: {error}");
            Vec::new()
        }
    }
}

/// Where Go's runtime can be watched in a module; `None` where it has none.
pub(crate) fn find(module: &Image, elf: &Elf, rules: KernelRules) -> Option<UnwinderSites> {
    let layout = elf.go.as_ref()?.layout().ok()?;
    let starts = Starts::of(elf, &module.file);
    let mut sites = Vec::new();
    let mut add = |name: &str, program: Program, cookie: u64| {
        if let Some((place, _)) = elf
            .own_symbol(name)
            .and_then(|symbol| entry_site(&starts, symbol, rules))
        {
            sites.push(Site::new(program, place, cookie));
        }
    };
    let keeps_panics = layout.recover.is_none_or(|recover| !recover.in_panic);
    add("runtime.gopanic", Program::GoPanic, keeps_panics.into());
    add("runtime.Goexit", Program::GoGoexit, 0);
    let recover = match layout.recover {
        Some(recover) if recover.in_panic => Some(recover),
        other => recover_from_code(module, elf).or(other),
    };
    if let Some(recover) = recover {
        add("runtime.recovery", Program::GoRecover, recover.pack());
    }
    (!sites.is_empty()).then(|| UnwinderSites {
        module: module.clone(),
        sites,
    })
}

/// Where it is seen that goroutines are made; `None` where that can't be seen: `runtime.newproc1` takes its
/// arguments in an order that is known from Go 1.18 on.
pub(super) fn spawn_sites(starts: &Starts<'_>, rules: KernelRules) -> Option<Vec<Site>> {
    let elf = starts.elf();
    let go = elf.go.as_ref()?;
    let cookie = u64::from(go.layout().ok().filter(|_| go.version >= Some(18))?.goid);
    let symbol = elf.own_symbol("runtime.newproc1")?;
    let (entry, _) = entry_site(starts, symbol, rules)?;
    let mut sites = vec![Site::new(Program::GoStarting, entry, cookie)];
    let code = Functions::of(elf).of_symbol(symbol).code(starts).ok()?;
    let read = |address: u64, len: usize| elf.bytes(starts.file(), address, len);
    let context = Context {
        rules,
        read_data: &read,
        is_probed: &|_| false,
        return_probe: ReturnProbe::Never,
        go: true,
        results: 0,
    };
    let ExitPlan::Sites(exits) = sites::plan(&code, &context).ok()?.exit else {
        return None;
    };
    for exit in exits.iter().filter(|exit| exit.returns) {
        let place = code.place(exit.address, &read)?;
        sites.push(Site::new(Program::GoStarted, place, cookie));
    }
    // One without the other would remember for nothing.
    (sites.len() > 1).then_some(sites)
}

/// Where versions before 1.22 keep the stack pointer of the frame that goes on, read off the code of
/// `runtime.recovery(gp)`: the first thing that it loads from the goroutine.
fn recover_from_code(module: &Image, elf: &Elf) -> Option<RecoverCookie> {
    let symbol = elf.own_symbol("runtime.recovery")?;
    let size = usize::try_from(symbol.size.min(128)).ok()?;
    let bytes = elf.bytes(&module.file, symbol.address, size)?;
    // Behind what it is certain not to be: the stack's bounds, the panic, the scheduler's registers.
    let offset = u16::try_from(sites::first_go_load(&bytes, symbol.address)?).ok()?;
    (144..1024).contains(&offset).then_some(RecoverCookie {
        in_panic: false,
        offset,
        value: 0,
    })
}

//! A file of 5 GB, most of it debug information, is planned within the planner's limits.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    time::Instant,
};

use crate::shell::{Result, build_agent_quickly, output, root, run, step, target_dir};

/// Bytes of `.debug_info`.
const SIZE: u64 = 5 << 30;
/// Bytes that are written at a time.
const PIECE: usize = 64 << 20;

/// A unit of about a megabyte, and in it the function that is asked for.
const FUNCTIONS: usize = 4_000;

pub(super) fn giant() -> Result<()> {
    let folder = target_dir().join("giant");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = folder.join("giant");
    let agent = build_agent_quickly()?;
    // gcc writes a table of addresses beside the units; without it, as clang does, each unit has to be looked at.
    for (what, flags) in [
        ("with a table of addresses", &[][..]),
        ("without", &["--remove-section=.debug_aranges"]),
    ] {
        step(&format!("making a file of 5 GB, {what}"), || {
            make(&folder, &program, flags)
        })?;
        let asked = step("planning a function of it", || ask(&agent, &program));
        let _ = fs::remove_file(&program);
        if !asked?.contains("send value as n") {
            return Err("the function's parameters were not found".to_owned());
        }
    }
    Ok(())
}

fn ask(agent: &Path, program: &Path) -> Result<String> {
    let began = Instant::now();
    let said = output(Command::new(agent).current_dir(root()).args([
        "symbols".as_ref(),
        "--file".as_ref(),
        program.as_os_str(),
        "--plan".as_ref(),
        "giant:work_7(n, s)".as_ref(),
    ]))?;
    print!("{said}");
    println!("{:.1} s", began.elapsed().as_secs_f64());
    Ok(said)
}

/// Compiles a program, and lets its debug information be there so often that the file has 5 GB: units are independent of
/// where they lie.
fn make(folder: &Path, program: &Path, flags: &[&str]) -> Result<()> {
    let source = folder.join("giant.c");
    let function = |number: usize| {
        format!(
            "struct s{number} {{ int a; char *b; struct s{number} *next; }};\n\
             __attribute__((noinline)) long work_{number}(struct s{number} *s, int n) {{ return n + s->a; }}\n"
        )
    };
    let mut text: String = (0..FUNCTIONS).map(function).collect();
    text.push_str("int main(void) { struct s7 s = {1, 0, 0}; return (int)work_7(&s, 2); }\n");
    fs::write(&source, text).map_err(|error| format!("{}: {error}", source.display()))?;
    run(Command::new("gcc")
        .args(["-g", "-O1", "-gno-pubnames", "-o"])
        .arg(program)
        .arg(&source))?;
    run(Command::new("objcopy").args(flags).arg(program))?;
    repeat_debug_info(program).map_err(|error| format!("{}: {error}", program.display()))
}

/// Moves `.debug_info` to the file's end and repeats it there (elf(5): the header's e_shoff, e_shentsize, e_shnum and
/// e_shstrndx; a section's sh_name, sh_offset and sh_size).
fn repeat_debug_info(program: &Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(program)?;
    let number = |at: u64, bytes: usize| -> std::io::Result<u64> {
        let mut number = [0; 8];
        file.read_exact_at(&mut number[..bytes], at)?;
        Ok(u64::from_le_bytes(number))
    };
    let (sections, size) = (number(0x28, 8)?, number(0x3a, 2)?);
    let header = |index: u64| sections + index * size;
    let names = number(header(number(0x3e, 2)?) + 0x18, 8)?;
    for index in 0..number(0x3c, 2)? {
        let mut name = [0; 12];
        let at = names + number(header(index), 4)?;
        if file.read_exact_at(&mut name, at).is_err() || &name != b".debug_info\0" {
            continue;
        }
        let mut units = vec![0; number(header(index) + 0x20, 8)? as usize];
        file.read_exact_at(&mut units, number(header(index) + 0x18, 8)?)?;
        let piece = units.repeat((PIECE / units.len()).max(1));
        let start = file.metadata()?.len().next_multiple_of(16);
        let mut end = start;
        while end - start < SIZE {
            file.write_all_at(&piece, end)?;
            end += piece.len() as u64;
        }
        file.write_all_at(&start.to_le_bytes(), header(index) + 0x18)?;
        return file.write_all_at(&(end - start).to_le_bytes(), header(index) + 0x20);
    }
    Err(std::io::Error::other("it has no debug information"))
}

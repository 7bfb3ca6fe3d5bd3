//! The files. Each is made when its turn comes.

use std::{io::Write as _, process::Command, sync::LazyLock};

use crate::elf::{BASE, Built, Section, Symbols, build, put, section};

/// Parts of a file, each with its place, and the file's length: what lies between is a hole.
pub type Pieces = (Vec<(u64, Vec<u8>)>, u64);

/// A hostile file.
pub struct Case {
    pub name: String,
    /// What must be said of it; empty where any answer will do.
    pub says: &'static str,
    make: Box<dyn FnOnce() -> Pieces>,
}

impl Case {
    fn new(
        name: impl Into<String>,
        says: &'static str,
        make: impl FnOnce() -> Pieces + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            says,
            make: Box::new(make),
        }
    }

    pub fn make(self) -> Pieces {
        (self.make)()
    }
}

fn whole(bytes: Vec<u8>) -> Pieces {
    let length = bytes.len() as u64;
    (vec![(0, bytes)], length)
}

/// What a compiler makes of a small program, with all kinds of sections.
static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = "struct point { int x, y; struct point *next; };\n\
        int sum(struct point *p, int n) { return p->x + p->y * n; }\n\
        __attribute__((noinline)) int twice(int n) { struct point p = {n, n, 0}; return sum(&p, 1); }\n";
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.c"), source).unwrap();
    std::fs::write(
        at("a.map"),
        "V1 { global: sum; }; V2 { global: twice; } V1;\n",
    )
    .unwrap();
    let status = Command::new("gcc")
        .current_dir(&folder)
        .args(["-g", "-O1", "-fPIC", "-shared", "-Wl,--build-id"])
        .args(["-Wl,--version-script=a.map", "-o", "a.so", "a.c"])
        .status()
        .expect("gcc is needed");
    assert!(status.success());
    std::fs::read(at("a.so")).unwrap()
});

/// A number in a file.
fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(&bytes[at..at + width]);
    usize::try_from(u64::from_le_bytes(wide)).unwrap()
}

/// Where sections lie in the real file: their headers, data and sizes.
fn sections_of(bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let (at, count) = (number(bytes, 40, 8), number(bytes, 60, 2));
    (0..count)
        .map(|index| {
            let header = at + index * 64;
            (
                header,
                number(bytes, header + 24, 8),
                number(bytes, header + 32, 8),
            )
        })
        .collect()
}

/// Numbers at which something may go wrong, in a file of this length.
fn limits(length: u64) -> [u64; 12] {
    [
        0,
        1,
        length - 1,
        length,
        0x800,
        (1 << 31) - 1,
        1 << 31,
        u32::MAX.into(),
        1 << 32,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ]
}

/// The real file with one number replaced.
fn with(at: usize, value: u64, width: usize) -> Pieces {
    let mut bytes = REAL.clone();
    put(&mut bytes, at, value, width);
    whole(bytes)
}

/// Each field of each header at its limits.
fn headers() -> impl Iterator<Item = Case> {
    let length = REAL.len() as u64;
    // Of the file's header: place and width.
    let file = [
        (16, 2),
        (20, 4),
        (32, 8),
        (40, 8),
        (52, 2),
        (54, 2),
        (56, 2),
        (58, 2),
        (60, 2),
        (62, 2),
    ];
    let mut fields: Vec<(String, usize, usize)> = file
        .iter()
        .map(|(at, width)| (format!("file header {at}"), *at, *width))
        .collect();
    let segments = number(&REAL, 32, 8);
    for segment in 0..number(&REAL, 56, 2) {
        for (field, width) in [(0, 4), (8, 8), (16, 8), (32, 8)] {
            let at = segments + segment * 56 + field;
            fields.push((format!("segment {segment} field {field}"), at, width));
        }
    }
    for (section, (header, ..)) in sections_of(&REAL).iter().enumerate() {
        for (field, width) in [(4, 4), (8, 8), (24, 8), (32, 8), (40, 4)] {
            let name = format!("section {section} field {field}");
            fields.push((name, header + field, width));
        }
    }
    fields.into_iter().flat_map(move |(name, at, width)| {
        let mut values: Vec<u64> = limits(length)
            .iter()
            .map(|value| match width {
                8 => *value,
                _ => value & ((1 << (width * 8)) - 1),
            })
            .collect();
        values.sort_unstable();
        values.dedup();
        values.into_iter().map(move |value| {
            Case::new(format!("{name} = {value:#x}"), "", move || {
                with(at, value, width)
            })
        })
    })
}

/// The first numbers of each section's contents at their limits.
fn contents() -> impl Iterator<Item = Case> {
    let sections = sections_of(&REAL);
    sections
        .into_iter()
        .enumerate()
        .flat_map(|(section, (_, data, size))| {
            // What a file has no contents of, has none to be changed.
            let end = size.min(40).min(REAL.len().saturating_sub(data + 8));
            (0..end).step_by(4).flat_map(move |at| {
                [0u64, u64::MAX, 1 << 63, 0xffff_fff0, 0x7fff_ffff]
                    .into_iter()
                    .map(move |value| {
                        let name = format!("contents of section {section} at {at}: {value:#x}");
                        let width = if value > u64::from(u32::MAX) { 8 } else { 4 };
                        Case::new(name, "", move || with(data + at, value, width))
                    })
            })
        })
}

/// Cut short everywhere.
fn cut() -> impl Iterator<Item = Case> {
    let length = REAL.len();
    (0..100).map(move |part| {
        let to = length * part / 100;
        Case::new(format!("cut at {to}"), "", move || {
            whole(REAL[..to].to_vec())
        })
    })
}

/// All cases, each with a name of its own.
pub fn all() -> impl Iterator<Item = Case> {
    named()
        .into_iter()
        .chain(headers())
        .chain(contents())
        .chain(cut())
}

/// One symbol, so that there is something to ask about.
fn one_symbol() -> Symbols {
    let mut symbols = Symbols::new();
    let name = symbols.text("work");
    symbols.function(name, BASE + 0x100, 4);
    symbols
}

/// A file whose section says that it is larger than it is, in a hole of 7 GiB.
fn in_a_hole(mut sections: Vec<Section>, name: &str) -> Pieces {
    const LENGTH: u64 = 7 << 30;
    let first = sections.len() as u32 + 2;
    sections.extend(one_symbol().sections(first));
    let mut built = build(&sections);
    let header = built.header(name);
    let at = built.bytes.len() as u64;
    put(&mut built.bytes, header + 24, at.next_multiple_of(4096), 8);
    put(&mut built.bytes, header + 32, 6 << 30, 8);
    (vec![(0, built.bytes)], LENGTH)
}

/// A compressed section's contents: kind (1 zlib, 2 zstd), what it says that it becomes.
fn compressed(kind: u32, size: u64, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 24];
    put(&mut out, 0, kind.into(), 4);
    put(&mut out, 8, size, 8);
    out.extend_from_slice(data);
    out
}

fn compressed_section(name: &'static str, kind: u32, size: u64, data: &[u8]) -> Section {
    Section {
        flags: 0x800,
        ..section(name, 1, compressed(kind, size, data))
    }
}

/// Zeros by zstd: blocks that say how often a byte is repeated. `window`: the byte that says how far it refers back.
fn zstd_zeros(size: u64, window: u8) -> Vec<u8> {
    const BLOCK: u64 = 128 << 10;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
    let blocks = size / BLOCK;
    for block in 0..blocks {
        let header = u64::from(block + 1 == blocks) | 1 << 1 | BLOCK << 3;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.push(0);
    }
    out
}

fn xz_zeros(size: usize) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    let chunk = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        writer.write_all(&chunk).unwrap();
    }
    writer.finish().unwrap()
}

fn with_symbols(symbols: Symbols, mut sections: Vec<Section>) -> Built {
    let link = sections.len() as u32 + 2;
    sections.extend(symbols.sections(link));
    build(&sections)
}

/// Numbers of 7 bits each.
fn uleb(mut value: u64, to: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return to.push(byte);
        }
        to.push(byte | 0x80);
    }
}

/// Abbreviation 1: a unit with its lines and ranges, if `attributes` says so.
fn abbreviations(attributes: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in [1, 0x11, 0] {
        uleb(value, &mut out);
    }
    for (name, form) in attributes {
        uleb(*name, &mut out);
        uleb(*form, &mut out);
    }
    out.extend_from_slice(&[0, 0]);
    out
}

/// Units of DWARF 4 whose only entry has abbreviation 1 and these bytes.
fn units(count: usize, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        out.extend_from_slice(&(8 + contents.len() as u32).to_le_bytes());
        out.extend_from_slice(&[4, 0, 0, 0, 0, 0, 8, 1]);
        out.extend_from_slice(contents);
    }
    out
}

/// The head of a line program of DWARF 4 with a list of files of `size` bytes.
fn line_head(size: usize) -> Vec<u8> {
    let mut files = vec![0];
    while files.len() < size {
        files.extend_from_slice(b"a\0\0\0\0");
    }
    files.push(0);
    let mut rest = vec![1, 1, 1, 0, 1, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    rest.extend_from_slice(&files);
    let mut out = Vec::new();
    out.extend_from_slice(&(rest.len() as u32 + 6).to_le_bytes());
    out.extend_from_slice(&[4, 0]);
    out.extend_from_slice(&(rest.len() as u32).to_le_bytes());
    out.extend_from_slice(&rest);
    out
}

/// A name whose every argument names the one before it twice.
fn doubled_cpp(levels: usize, number: usize) -> String {
    let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".as_bytes();
    let reference = |place: usize| match place {
        0 => "S_".to_owned(),
        1..=36 => format!("S{}_", digits[place - 1] as char),
        _ => {
            let place = place - 1;
            format!(
                "S{}{}_",
                digits[place / 36] as char,
                digits[place % 36] as char
            )
        }
    };
    let mut symbol = format!("_Z{}work{number}1PIiiE", 4 + number.to_string().len());
    for level in 0..levels {
        let last = reference(level + 1);
        symbol.push_str(&format!("S_I{last}{last}E"));
    }
    symbol
}

/// A tuple of two times the type before it, by reference.
fn doubled_rust(levels: usize, number: usize) -> String {
    let digit = |value: usize| {
        let digits = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let (mut value, mut out) = (value, Vec::new());
        if value == 0 {
            return String::new();
        }
        value -= 1;
        loop {
            out.push(digits[value % 62]);
            value /= 62;
            if value == 0 {
                break;
            }
        }
        out.reverse();
        String::from_utf8(out).unwrap()
    };
    let mut symbol = format!("_RINvC{}work{number}1f", 4 + number.to_string().len());
    let mut last = None;
    for _ in 0..levels {
        // Counted from behind `_R`.
        let at = symbol.len() - 2;
        match last {
            None => symbol.push_str("TuuE"),
            Some(before) => {
                let reference = format!("B{}_", digit(before));
                symbol.push_str(&format!("T{reference}{reference}E"));
            }
        }
        last = Some(at);
    }
    symbol + "E"
}

fn many_names(count: usize, name: impl Fn(usize) -> String) -> Pieces {
    let mut symbols = Symbols::new();
    for number in 0..count {
        let text = symbols.text(&name(number));
        symbols.function(text, BASE + 0x100 + number as u64, 1);
    }
    whole(with_symbols(symbols, Vec::new()).bytes)
}

fn shared_name(count: usize, length: usize) -> Pieces {
    let mut symbols = Symbols::new();
    let name = symbols.text(&"n".repeat(length));
    for number in 0..count as u64 {
        symbols.function(name, BASE + number, 1);
    }
    whole(with_symbols(symbols, Vec::new()).bytes)
}

fn debug_file(sections: Vec<Section>) -> Pieces {
    whole(with_symbols(one_symbol(), sections).bytes)
}

const STATEMENTS: (u64, u64) = (0x10, 0x17);
const RANGES: (u64, u64) = (0x55, 0x17);

/// What was found by attacking the agent, and what is like it.
fn named() -> Vec<Case> {
    const MEMORY: &str = "takes more memory than";
    vec![
        Case::new("the real one", "read, ", || whole(REAL.clone())),
        Case::new(
            "symbol table of 6 GiB",
            "symbol table is larger than 96 MiB",
            || in_a_hole(Vec::new(), ".symtab"),
        ),
        Case::new("names of 6 GiB", "read, ", || {
            in_a_hole(Vec::new(), ".strtab")
        }),
        Case::new("build ID of 6 GiB", "read, 1", || {
            in_a_hole(
                vec![section(".note.gnu.build-id", 7, vec![0; 16])],
                ".note.gnu.build-id",
            )
        }),
        Case::new("dynamic section of 6 GiB", "read, 1", || {
            in_a_hole(vec![section(".dynamic", 6, vec![0; 16])], ".dynamic")
        }),
        Case::new("unwind table of 6 GiB", "", || {
            in_a_hole(vec![section(".eh_frame", 1, vec![0; 16])], ".eh_frame")
        }),
        Case::new("debug information of 6 GiB", "", || {
            in_a_hole(
                vec![
                    section(".debug_info", 1, vec![0; 16]),
                    section(".debug_abbrev", 1, vec![0]),
                ],
                ".debug_info",
            )
        }),
        Case::new("abbreviations of 6 GiB", "", || {
            in_a_hole(
                vec![
                    section(".debug_abbrev", 1, vec![0; 16]),
                    section(".debug_info", 1, units(10, &[])),
                ],
                ".debug_abbrev",
            )
        }),
        Case::new("Go's function table of 6 GiB", "", || {
            in_a_hole(vec![section(".gopclntab", 1, vec![0; 16])], ".gopclntab")
        }),
        Case::new("compressed symbols of 6 GiB", "read, 1", || {
            in_a_hole(
                vec![section(".gnu_debugdata", 1, vec![0; 16])],
                ".gnu_debugdata",
            )
        }),
        Case::new("100 million sections", "sections and segments", || {
            let mut built = with_symbols(one_symbol(), Vec::new());
            put(&mut built.bytes, 60, 0, 2);
            let first = built.headers;
            put(&mut built.bytes, first + 32, 100_000_000, 8);
            (vec![(0, built.bytes)], 7 << 30)
        }),
        Case::new("4 billion segments", "sections and segments", || {
            let mut built = with_symbols(one_symbol(), Vec::new());
            put(&mut built.bytes, 56, 0xffff, 2);
            let first = built.headers;
            put(&mut built.bytes, first + 44, u32::MAX.into(), 4);
            (vec![(0, built.bytes)], 300 << 30)
        }),
        Case::new("six sections of 2 GiB by zstd", MEMORY, || {
            let zeros = zstd_zeros(2 << 30, 0x38);
            let names = [
                ".debug_info",
                ".debug_abbrev",
                ".debug_str",
                ".debug_line",
                ".debug_ranges",
                ".debug_loc",
            ];
            debug_file(
                names
                    .map(|name| compressed_section(name, 2, 2 << 30, &zeros))
                    .into(),
            )
        }),
        Case::new("zstd that refers back 1 TiB", "can't be read", || {
            let zeros = zstd_zeros(1 << 20, 0xf0);
            debug_file(vec![compressed_section(".debug_info", 2, 1 << 20, &zeros)])
        }),
        Case::new("zstd that is shorter than it says", "can't be read", || {
            let zeros = zstd_zeros(1 << 20, 0x38);
            debug_file(vec![compressed_section(".debug_info", 2, 2 << 20, &zeros)])
        }),
        Case::new("zstd that is longer than it says", "", || {
            let zeros = zstd_zeros(1 << 30, 0x38);
            debug_file(vec![compressed_section(".debug_info", 2, 100, &zeros)])
        }),
        Case::new("zlib of 6 GiB twice", "too large in parts", || {
            let zeros = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 16 << 20], 1);
            let section = compressed_section(".debug_info", 1, 6 << 30, &zeros);
            debug_file(vec![section.clone(), section])
        }),
        Case::new("zlib of 100 MiB twice", MEMORY, || {
            let zeros = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 100 << 20], 1);
            let section = compressed_section(".debug_info", 1, 100 << 20, &zeros);
            debug_file(vec![section.clone(), section])
        }),
        Case::new(
            "zlib of 9 GiB",
            "larger than 8 GiB when decompressed",
            || {
                let zeros = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 16 << 20], 1);
                debug_file(vec![compressed_section(".debug_info", 1, 9 << 30, &zeros)])
            },
        ),
        Case::new("zlib of 7 GiB that ends before", "", || {
            let zeros = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 16 << 20], 1);
            debug_file(vec![compressed_section(".debug_info", 1, 7 << 30, &zeros)])
        }),
        Case::new("zlib of 200 MiB", "", || {
            let zeros = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 200 << 20], 1);
            debug_file(vec![compressed_section(
                ".debug_info",
                1,
                200 << 20,
                &zeros,
            )])
        }),
        Case::new("symbols of 400 MiB by xz", MEMORY, || {
            whole(build(&[section(".gnu_debugdata", 1, xz_zeros(400 << 20))]).bytes)
        }),
        Case::new("xz that refers back 4 GiB", MEMORY, || {
            let mut packed = xz_zeros(1 << 20);
            // The block's header: its size, flags, the filter's number and the size of its properties, these.
            assert_eq!(packed[12 + 2..12 + 4], [0x21, 1]);
            packed[12 + 4] = 40;
            let size = (usize::from(packed[12]) + 1) * 4;
            let sum = crc32fast::hash(&packed[12..12 + size - 4]);
            put(&mut packed, 12 + size - 4, sum.into(), 4);
            whole(build(&[section(".gnu_debugdata", 1, packed)]).bytes)
        }),
        Case::new(
            "300,000 symbols with one name of 16,000 bytes",
            MEMORY,
            || shared_name(300_000, 16_000),
        ),
        Case::new(
            "1,000,000 symbols with one name of 4,000 bytes",
            MEMORY,
            || shared_name(1_000_000, 4000),
        ),
        Case::new("300,000 symbols with one name of 1 MiB", "read, 0", || {
            shared_name(300_000, 1 << 20)
        }),
        Case::new(
            "2,000 names of C++ that double",
            "2000 names were not demangled",
            || many_names(2000, |number| doubled_cpp(60, number)),
        ),
        Case::new(
            "2,000 names of Rust that double 60 times",
            "2000 names were not demangled",
            || many_names(2000, |number| doubled_rust(60, number)),
        ),
        Case::new(
            "20,000 names of Rust that double 15 times",
            "names were not demangled",
            || many_names(20_000, |number| doubled_rust(15, number)),
        ),
        Case::new("names nested 4,000 deep", "", || {
            many_names(20, |number| format!("_Z4work{}i{number}", "P".repeat(4000)))
        }),
        Case::new(
            "3,000,000 abbreviations for 20,000 units",
            "table of abbreviations",
            || {
                let mut table = Vec::new();
                for code in 1..3_000_000 {
                    uleb(code, &mut table);
                    table.extend_from_slice(&[0x11, 0, 0, 0]);
                }
                table.push(0);
                debug_file(vec![
                    section(".debug_abbrev", 1, table),
                    section(".debug_info", 1, units(20_000, &[])),
                ])
            },
        ),
        Case::new(
            "4,000,000 attributes for 2,000 units",
            "table of abbreviations",
            || {
                let mut table = vec![1, 0x11, 0];
                for _ in 0..4_000_000 {
                    table.extend_from_slice(&[0x03, 0x19]);
                }
                table.extend_from_slice(&[0, 0, 0]);
                debug_file(vec![
                    section(".debug_abbrev", 1, table),
                    section(".debug_info", 1, units(2000, &[])),
                ])
            },
        ),
        Case::new("400,000 abbreviations for 20,000 units", "", || {
            let mut table = Vec::new();
            for code in 1..350_000 {
                uleb(code, &mut table);
                table.extend_from_slice(&[0x11, 0, 0, 0]);
            }
            table.push(0);
            debug_file(vec![
                section(".debug_abbrev", 1, table),
                section(".debug_info", 1, units(20_000, &[])),
            ])
        }),
        Case::new("names of files of 3 MiB", "names of source files", || {
            debug_file(vec![
                section(".debug_abbrev", 1, abbreviations(&[STATEMENTS])),
                section(".debug_info", 1, units(1000, &[0; 4])),
                section(".debug_line", 1, line_head(3 << 20)),
            ])
        }),
        Case::new(
            "names of files of 1.5 MiB for 20,000 units",
            "takes longer than",
            || {
                debug_file(vec![
                    section(".debug_abbrev", 1, abbreviations(&[STATEMENTS])),
                    section(".debug_info", 1, units(20_000, &[0; 4])),
                    section(".debug_line", 1, line_head(3 << 19)),
                ])
            },
        ),
        Case::new("100,000 ranges for 20,000 units", MEMORY, || {
            let mut ranges = Vec::new();
            for place in 0..100_000u64 {
                ranges.extend_from_slice(&(1 + place * 2).to_le_bytes());
                ranges.extend_from_slice(&(2 + place * 2).to_le_bytes());
            }
            ranges.extend_from_slice(&[0; 16]);
            debug_file(vec![
                section(".debug_abbrev", 1, abbreviations(&[RANGES])),
                section(".debug_info", 1, units(20_000, &[0; 4])),
                section(".debug_ranges", 1, ranges),
            ])
        }),
        Case::new("2,000,000 empty units", "", || {
            debug_file(vec![
                section(".debug_abbrev", 1, abbreviations(&[])),
                section(".debug_info", 1, units(2_000_000, &[])),
            ])
        }),
    ]
}

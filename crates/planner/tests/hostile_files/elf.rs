//! Writes ELF files whose every header field can be anything.

/// A section to be.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub name: &'static str,
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub link: u32,
    pub info: u32,
    pub data: Vec<u8>,
}

pub fn section(name: &'static str, kind: u32, data: Vec<u8>) -> Section {
    Section {
        name,
        kind,
        data,
        ..Section::default()
    }
}

/// A file: its bytes, and where things lie in it.
#[derive(Clone, Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    /// Offset of the section headers.
    pub headers: usize,
    pub names: Vec<&'static str>,
}

/// Where the one segment's header lies.
pub const SEGMENT: usize = 64;
/// The address of the file's first byte.
pub const BASE: u64 = 0x40_0000;

impl Built {
    /// The number of a section.
    pub fn number(&self, name: &str) -> usize {
        self.names.iter().position(|other| *other == name).unwrap()
    }

    /// Where the header of a section lies.
    pub fn header(&self, name: &str) -> usize {
        self.headers + 64 * self.number(name)
    }
}

/// Puts a number of `width` bytes somewhere.
pub fn put(bytes: &mut [u8], at: usize, value: u64, width: usize) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// A file with one executable segment that is all of it, and these sections behind an empty one, with a section of
/// names as the last.
pub fn build(sections: &[Section]) -> Built {
    let mut bytes = vec![0u8; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut bytes, 16, 3, 2);
    put(&mut bytes, 18, 62, 2);
    put(&mut bytes, 20, 1, 4);
    let mut all = vec![Section::default()];
    all.extend_from_slice(sections);
    let mut texts = vec![0u8];
    let mut name_at = Vec::new();
    all.push(section(".shstrtab", 3, Vec::new()));
    for section in &all {
        name_at.push(texts.len());
        texts.extend_from_slice(section.name.as_bytes());
        texts.push(0);
    }
    all.last_mut().unwrap().data = texts;
    let mut data = Vec::new();
    for section in &all {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        data.push(bytes.len());
        bytes.extend_from_slice(&section.data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let headers = bytes.len();
    for (number, section) in all.iter().enumerate() {
        let mut header = [0u8; 64];
        put(&mut header, 0, name_at[number] as u64, 4);
        put(&mut header, 4, section.kind.into(), 4);
        put(&mut header, 8, section.flags, 8);
        put(&mut header, 16, section.address, 8);
        put(&mut header, 24, data[number] as u64, 8);
        put(&mut header, 32, section.data.len() as u64, 8);
        put(&mut header, 40, section.link.into(), 4);
        put(&mut header, 44, section.info.into(), 4);
        bytes.extend_from_slice(&header);
    }
    let length = bytes.len() as u64;
    put(&mut bytes, 32, 64, 8);
    put(&mut bytes, 40, headers as u64, 8);
    put(&mut bytes, 54, 56, 2);
    put(&mut bytes, 56, 1, 2);
    put(&mut bytes, 58, 64, 2);
    put(&mut bytes, 60, all.len() as u64, 2);
    put(&mut bytes, 62, all.len() as u64 - 1, 2);
    // PT_LOAD, readable and executable.
    put(&mut bytes, SEGMENT, 1, 4);
    put(&mut bytes, SEGMENT + 4, 5, 4);
    put(&mut bytes, SEGMENT + 16, BASE, 8);
    put(&mut bytes, SEGMENT + 32, length, 8);
    put(&mut bytes, SEGMENT + 40, length, 8);
    let names = all.iter().map(|section| section.name).collect();
    Built {
        bytes,
        headers,
        names,
    }
}

/// A symbol table and its names.
#[derive(Default)]
pub struct Symbols {
    pub entries: Vec<u8>,
    pub texts: Vec<u8>,
}

impl Symbols {
    pub fn new() -> Self {
        Self {
            entries: vec![0; 24],
            texts: vec![0],
        }
    }

    /// Adds a name.
    pub fn text(&mut self, text: &str) -> u32 {
        let at = self.texts.len() as u32;
        self.texts.extend_from_slice(text.as_bytes());
        self.texts.push(0);
        at
    }

    /// Adds a global function whose name lies at an offset.
    pub fn function(&mut self, name: u32, address: u64, size: u64) {
        let mut entry = [0u8; 24];
        put(&mut entry, 0, name.into(), 4);
        entry[4] = 0x12;
        put(&mut entry, 6, 1, 2);
        put(&mut entry, 8, address, 8);
        put(&mut entry, 16, size, 8);
        self.entries.extend_from_slice(&entry);
    }

    /// As sections; `link`: the number that the second will have.
    pub fn sections(self, link: u32) -> [Section; 2] {
        let mut table = section(".symtab", 2, self.entries);
        table.link = link;
        [table, section(".strtab", 3, self.texts)]
    }
}

//! A section of a file that is read when it is looked at, a page at a time: debug information can be
//! larger than memory, and of a large file a probe needs little. The file is read, not mapped: one that
//! is cut short meanwhile is an error and not a signal.

use std::{
    borrow::Cow, cell::RefCell, collections::HashMap, fmt, fs::File, os::unix::fs::FileExt as _,
    rc::Rc,
};

use gimli::{Error, LittleEndian, ReaderOffsetId, Result};

use super::deflated::Deflated;

/// Bytes that are read at a time.
const PAGE: usize = 8 << 10;
/// Pages that are kept: 32 MiB.
const MAX_PAGES: usize = 4096;
/// Longest run of bytes that is handed out in one piece.
const MAX_SLICE: usize = 16 << 20;

/// Where a section's bytes come from.
enum Source {
    /// A file, from this offset on.
    File { file: Rc<Pages>, offset: u64 },
    /// Memory: a section that was compressed, or that is not there.
    Memory(Vec<u8>),
}

/// Pages of a compressed section that are kept: 8 MiB.
const MAX_INFLATED: usize = 1024;

/// What pages are made from.
enum Backing {
    /// A file as it is.
    File(File),
    /// A compressed section of one.
    Deflated(RefCell<Deflated>),
}

impl Backing {
    /// Fills `to` with what lies at `at`, as far as there is something.
    fn fill(&self, at: u64, to: &mut [u8]) -> Result<usize> {
        let file = match self {
            Self::File(file) => file,
            Self::Deflated(section) => return section.borrow_mut().read(at, to),
        };
        let mut filled = 0;
        while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(_) => return Err(Error::Io),
            }
        }
        Ok(filled)
    }
}

/// The pages of a file, or of a compressed section.
pub struct Pages {
    backing: Backing,
    most: usize,
    kept: RefCell<HashMap<u64, Rc<[u8]>>>,
    last: RefCell<Option<(u64, Rc<[u8]>)>>,
}

impl Pages {
    /// Of a file, none read yet.
    pub fn of(file: File) -> Rc<Self> {
        Self::new(Backing::File(file), MAX_PAGES)
    }

    /// Of a compressed section.
    pub fn inflated(section: Deflated) -> Rc<Self> {
        Self::new(Backing::Deflated(RefCell::new(section)), MAX_INFLATED)
    }

    fn new(backing: Backing, most: usize) -> Rc<Self> {
        Rc::new(Self {
            backing,
            most,
            kept: RefCell::default(),
            last: RefCell::default(),
        })
    }

    fn page(&self, number: u64) -> Result<Rc<[u8]>> {
        if let Some((last, page)) = &*self.last.borrow()
            && *last == number
        {
            return Ok(page.clone());
        }
        let mut kept = self.kept.borrow_mut();
        let page = match kept.get(&number) {
            Some(page) => page.clone(),
            None => {
                let mut bytes = vec![0; PAGE];
                let filled = self.backing.fill(number * PAGE as u64, &mut bytes)?;
                bytes.truncate(filled);
                if kept.len() >= self.most {
                    kept.clear();
                }
                let page: Rc<[u8]> = bytes.into();
                kept.insert(number, page.clone());
                page
            }
        };
        *self.last.borrow_mut() = Some((number, page.clone()));
        Ok(page)
    }

    fn read(&self, mut at: u64, mut to: &mut [u8]) -> Result<()> {
        while !to.is_empty() {
            let page = self.page(at / PAGE as u64)?;
            let from = page
                .get((at % PAGE as u64) as usize..)
                .filter(|from| !from.is_empty())
                .ok_or(Error::Io)?;
            let len = from.len().min(to.len());
            let (now, later) = to.split_at_mut(len);
            now.copy_from_slice(&from[..len]);
            to = later;
            at += len as u64;
        }
        Ok(())
    }
}

/// A part of a section.
#[derive(Clone)]
pub struct Section {
    source: Rc<Source>,
    /// Within the section.
    start: usize,
    len: usize,
}

impl Section {
    /// `len` bytes of a file.
    pub fn of_file(file: Rc<Pages>, offset: u64, len: usize) -> Self {
        Self {
            source: Rc::new(Source::File { file, offset }),
            start: 0,
            len,
        }
    }

    /// These bytes.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self {
            start: 0,
            len: bytes.len(),
            source: Rc::new(Source::Memory(bytes)),
        }
    }

    fn copy(&self, at: usize, to: &mut [u8]) -> Result<()> {
        if at.checked_add(to.len()).is_none_or(|end| end > self.len) {
            return Err(Error::UnexpectedEof(self.id()));
        }
        let at = self.start + at;
        match &*self.source {
            Source::File { file, offset } => file.read(offset + at as u64, to),
            Source::Memory(bytes) => {
                let from = bytes.get(at..at + to.len()).ok_or(Error::Io)?;
                to.copy_from_slice(from);
                Ok(())
            }
        }
    }

    fn id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.start as u64)
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.len, self.start)
    }
}

impl gimli::Reader for Section {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.len
    }

    fn empty(&mut self) {
        self.len = 0;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::UnexpectedEof(self.id()));
        }
        self.len = len;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.start.saturating_sub(base.start)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        self.id()
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let at = usize::try_from(id.0).ok()?.checked_sub(self.start)?;
        (at <= self.len).then_some(at)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut buffer = [0; 256];
        let mut at = 0;
        while at < self.len {
            let len = buffer.len().min(self.len - at);
            let part = &mut buffer[..len];
            self.copy(at, part)?;
            if let Some(found) = part.iter().position(|other| *other == byte) {
                return Ok(at + found);
            }
            at += len;
        }
        Err(Error::UnexpectedEof(self.id()))
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::UnexpectedEof(self.id()));
        }
        self.start += len;
        self.len -= len;
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut first = self.clone();
        first.truncate(len)?;
        self.skip(len)?;
        Ok(first)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        if self.len > MAX_SLICE {
            return Err(Error::Io);
        }
        let mut bytes = vec![0; self.len];
        self.copy(0, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        String::from_utf8(self.to_slice()?.into_owned())
            .map(Cow::Owned)
            .map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(Cow::Owned(
            String::from_utf8_lossy(&self.to_slice()?).into_owned(),
        ))
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.copy(0, buf)?;
        self.skip(buf.len())
    }
}

//! A section of a file that is read when it is looked at, a page at a time: debug information can be
//! larger than memory, and of a large file a probe needs little. The file is read, not mapped: one that
//! is cut short meanwhile is an error and not a signal.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    fs::File,
    os::unix::fs::FileExt as _,
    rc::Rc,
    sync::Arc,
};

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, Error, LittleEndian, ReaderOffsetId, Result,
};

use super::{DebugError, deflated::Deflated};
use crate::foreign::{Budget, Cost, Exceeded};

/// Bytes that are read at a time.
const PAGE: usize = 8 << 10;
/// Pages that are kept: 32 MiB.
const MAX_PAGES: usize = 4096;
/// Longest run of bytes that is handed out in one piece: a name, an expression.
const MAX_SLICE: usize = 1 << 20;
/// Reads between looks at the clock.
const READS: u32 = 4096;
/// Bytes of tables of abbreviations that are kept; in memory they take up to fifty times as much.
const KEPT_TABLES: usize = 1 << 20;
/// A read of as many bytes counts as one.
const READ: usize = 512;

/// Tables of abbreviations by their offset, each with its size in bytes.
type Tables = HashMap<usize, (Arc<Abbreviations>, usize)>;

/// A section's bytes, and what is kept of them.
struct Source {
    place: Place,
    budget: Budget,
    /// Reads since the last look at the clock.
    reads: Cell<u32>,
    /// Bytes that were read, all in all.
    copied: Cell<usize>,
    /// Tables of abbreviations by where they begin, and how many bytes they have.
    tables: RefCell<(Tables, usize)>,
}

/// Where a section's bytes come from.
enum Place {
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
pub(super) struct Pages {
    backing: Backing,
    most: usize,
    kept: RefCell<HashMap<u64, Rc<[u8]>>>,
    last: RefCell<Option<(u64, Rc<[u8]>)>>,
}

impl Pages {
    /// Of a file, none read yet.
    pub(super) fn of(file: File, budget: &Budget) -> Rc<Self> {
        Self::new(Backing::File(file), MAX_PAGES, budget)
    }

    /// Of a compressed section.
    pub(super) fn inflated(section: Deflated, budget: &Budget) -> Rc<Self> {
        Self::new(
            Backing::Deflated(RefCell::new(section)),
            MAX_INFLATED,
            budget,
        )
    }

    fn new(backing: Backing, most: usize, budget: &Budget) -> Rc<Self> {
        // A 64th of what may be kept of the file: there are some ten sections.
        let share = usize::try_from(budget.limits().memory / 64).unwrap_or(usize::MAX);
        Rc::new(Self {
            backing,
            most: most.min(share / PAGE).max(1),
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
pub(super) struct Section {
    source: Rc<Source>,
    /// Within the section.
    start: usize,
    len: usize,
}

impl Section {
    /// `len` bytes of a file.
    pub(super) fn of_file(file: Rc<Pages>, offset: u64, len: usize, budget: Budget) -> Self {
        Self::new(Place::File { file, offset }, len, budget)
    }

    /// These bytes.
    pub(super) fn of_bytes(bytes: Vec<u8>, budget: Budget) -> Self {
        let len = bytes.len();
        Self::new(Place::Memory(bytes), len, budget)
    }

    fn new(place: Place, len: usize, budget: Budget) -> Self {
        Self {
            source: Rc::new(Source {
                place,
                budget,
                reads: Cell::new(0),
                copied: Cell::new(0),
                tables: RefCell::default(),
            }),
            start: 0,
            len,
        }
    }

    /// What reading its file may still cost.
    pub(super) fn budget(&self) -> &Budget {
        &self.source.budget
    }

    /// The table of abbreviations that begins at an offset, and its bytes: read once, however many units name it.
    ///
    /// # Errors
    /// Where it makes no sense, or is larger than any compiler's.
    pub(super) fn abbreviations(
        &self,
        at: DebugAbbrevOffset,
    ) -> std::result::Result<(Arc<Abbreviations>, usize), DebugError> {
        use gimli::Reader as _;
        // A table that is too large is not read again for each unit.
        if let Some(
            over @ (Exceeded::Time(_) | Exceeded::Cost(Cost::Abbreviations | Cost::LineHeads, _)),
        ) = self.budget().exceeded()
        {
            return Err(over.into());
        }
        let place = self.start.saturating_add(at.0);
        if let Some(known) = self.source.tables.borrow().0.get(&place) {
            return Ok(known.clone());
        }
        let most = self.budget().limits().abbreviations;
        let mut rest = self.clone();
        rest.skip(at.0)?;
        let whole = rest.len;
        let most_here = usize::try_from(most).map_or(whole, |most| most.min(whole));
        rest.truncate(most_here)?;
        let before = self.source.copied.get();
        let table = DebugAbbrev::from(rest).abbreviations(DebugAbbrevOffset(0));
        let table = match table {
            Ok(table) => Arc::new(table),
            // It was cut short.
            Err(Error::UnexpectedEof(_)) if most_here < whole => {
                self.budget()
                    .check(Cost::Abbreviations, most.saturating_add(1))?;
                return Err(Error::Io.into());
            }
            Err(error) => return Err(error.into()),
        };
        let (tables, size) = &mut *self.source.tables.borrow_mut();
        let weight = self.source.copied.get().wrapping_sub(before);
        if size.saturating_add(weight) > KEPT_TABLES {
            tables.clear();
            *size = 0;
        }
        *size += weight;
        tables.insert(place, (table.clone(), weight));
        Ok((table, weight))
    }

    fn copy(&self, at: usize, to: &mut [u8]) -> Result<()> {
        if at.checked_add(to.len()).is_none_or(|end| end > self.len) {
            return Err(Error::UnexpectedEof(self.id()));
        }
        let at = self.start + at;
        self.tick(to.len())?;
        let copied = &self.source.copied;
        copied.set(copied.get().wrapping_add(to.len()));
        match &self.source.place {
            Place::File { file, offset } => file.read(offset + at as u64, to),
            Place::Memory(bytes) => {
                let from = bytes.get(at..at + to.len()).ok_or(Error::Io)?;
                to.copy_from_slice(from);
                Ok(())
            }
        }
    }

    /// Looks at the clock now and then: what refers to itself in many ways is read for ever.
    fn tick(&self, len: usize) -> Result<()> {
        let reads = self.source.reads.get() + 1 + (len / READ) as u32;
        if reads < READS {
            self.source.reads.set(reads);
            return Ok(());
        }
        self.source.reads.set(0);
        self.budget().check_time().map_err(|_| Error::Io)
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

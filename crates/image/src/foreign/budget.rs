//! What reading one foreign file may cost. Whoever owns a target chooses its files, and a file of a few kilobytes can
//! claim sections of gigabytes, names that take a day to write out, or tables that are read again for each unit. So
//! everything is taken from the file's budget before it is read; a file that is over it is refused, with the
//! budget's name.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{FILE_LIMITS, FileLimits, room};

/// Something that a file's reading costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// Headers of sections and segments.
    Sections,
    /// Bytes of sections that are read as a whole.
    SectionData,
    /// Entries of symbol tables.
    Symbols,
    /// Bytes of names of symbols and sections.
    Names,
    /// Bytes that compressed sections are, or say that they are, when decompressed.
    Decompressed,
    /// Bytes of one table of abbreviations.
    Abbreviations,
    /// Bytes of the heads of line programs: names of files and folders.
    LineHeads,
    /// Bytes that demangled names came to, those that were thrown away too.
    Demangling,
    /// Bytes of memory in which any of this is kept.
    Memory,
}

const COSTS: usize = Cost::Memory as usize + 1;

/// A file's reading would cost more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Too much of something.
    #[error("{}", sentence(*.0, *.1))]
    Cost(Cost, u64),
    /// It takes too long.
    #[error("reading it takes longer than {} seconds, which is the longest that is waited", .0.as_secs_f32())]
    Time(Duration),
}

fn sentence(cost: Cost, limit: u64) -> String {
    let most = "which is the most that is read";
    let bytes = bytes(limit);
    match cost {
        Cost::Sections => format!("it has more than {limit} sections and segments, {most}"),
        Cost::SectionData => format!("its sections are larger than {bytes} together, {most}"),
        // An entry has 24 bytes.
        Cost::Symbols => format!(
            "its symbol table is larger than {}, {most}",
            self::bytes(limit.saturating_mul(24))
        ),
        Cost::Names => format!("the names of its symbols are longer than {bytes} together, {most}"),
        Cost::Decompressed => {
            format!("its compressed sections are larger than {bytes} when decompressed, {most}")
        }
        Cost::Abbreviations => {
            format!(
                "a table of abbreviations of its debug information is larger than {bytes}, {most}"
            )
        }
        Cost::LineHeads => format!(
            "the names of source files of a unit of its debug information take more than {bytes}, {most}"
        ),
        Cost::Demangling => format!("its names are longer than {bytes} when demangled, {most}"),
        Cost::Memory => {
            format!(
                "what is to be kept of it takes more memory than {bytes}, which is the most for a file here"
            )
        }
    }
}

/// A number of bytes, for people.
fn bytes(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                rest => format!("{}.{rest} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

/// The budget of one file, shared by all who read it.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limits: FileLimits,
    spent: [AtomicU64; COSTS],
    /// The first that was too much.
    exceeded: OnceLock<Exceeded>,
    /// Nanoseconds that were spent on reading, of what is over.
    read_for: AtomicU64,
    /// When who reads now began, in nanoseconds from some moment on, and how many do.
    reads_since: AtomicU64,
    readers: AtomicU32,
    /// Names that were left as they are.
    not_demangled: AtomicU64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            limits: in_force(),
            spent: [const { AtomicU64::new(0) }; COSTS],
            exceeded: OnceLock::new(),
            read_for: AtomicU64::new(0),
            reads_since: AtomicU64::new(0),
            readers: AtomicU32::new(0),
            not_demangled: AtomicU64::new(0),
        }
    }
}

/// The limits of a file that is read now: where memory is scarce, less of it.
fn in_force() -> FileLimits {
    // What is kept of a symbol is copied for who lists functions, some times over.
    let memory = FILE_LIMITS.memory.min(room::left() / 6);
    FileLimits {
        memory,
        demangling: FILE_LIMITS.demangling.min(memory),
        ..FILE_LIMITS
    }
}

impl Budget {
    /// With other limits than those in force.
    pub fn with(limits: FileLimits) -> Self {
        Self(Arc::new(Account {
            limits,
            ..Account::default()
        }))
    }

    /// The limits.
    pub fn limits(&self) -> &FileLimits {
        &self.0.limits
    }

    /// Takes something for what is about to be read.
    ///
    /// # Errors
    /// Where there is not as much left.
    pub fn take(&self, cost: Cost, amount: u64) -> Result<(), Exceeded> {
        let limit = self.limits().of(cost);
        let Some(spent) = self.0.spent.get(cost as usize) else {
            return Ok(());
        };
        if spent
            .fetch_add(amount.min(u64::MAX >> 1), Relaxed)
            .saturating_add(amount)
            > limit
        {
            // Not to wrap around, however often it is asked.
            spent.fetch_min(limit.saturating_add(1), Relaxed);
            return Err(self.exceed(Exceeded::Cost(cost, limit)));
        }
        Ok(())
    }

    /// Whether something may be in memory for a while.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        bytes <= self.limits().memory
    }

    /// Gives memory back that is not kept any more.
    pub fn give_back(&self, amount: u64) {
        if let Some(spent) = self.0.spent.get(Cost::Memory as usize) {
            let _ =
                spent.fetch_update(Relaxed, Relaxed, |spent| Some(spent.saturating_sub(amount)));
        }
    }

    /// Looks whether one thing is too large, where these are not added up.
    ///
    /// # Errors
    /// Where it is.
    pub fn check(&self, cost: Cost, amount: u64) -> Result<(), Exceeded> {
        let limit = self.limits().of(cost);
        if amount > limit {
            return Err(self.exceed(Exceeded::Cost(cost, limit)));
        }
        Ok(())
    }

    fn exceed(&self, exceeded: Exceeded) -> Exceeded {
        *self.0.exceeded.get_or_init(|| exceeded)
    }

    /// The first that was too much of something, if anything was.
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        self.0.exceeded.get().copied()
    }

    /// What is left for demangling, in bytes; a name's work is taken when it is over ([`demangled`](Self::demangled)).
    pub(crate) fn left_for_demangling(&self) -> u64 {
        let spent = self.0.spent.get(Cost::Demangling as usize);
        let spent = spent.map_or(0, |spent| spent.load(Relaxed));
        if self.check_time().is_err() {
            return 0;
        }
        self.limits().demangling.saturating_sub(spent)
    }

    /// Notes the work of a name, and whether it was in vain. A name that is left as it is, is no reason to refuse the
    /// file.
    pub fn demangled(&self, work: u64, done: bool) {
        if let Some(spent) = self.0.spent.get(Cost::Demangling as usize) {
            spent.fetch_add(work, Relaxed);
        }
        if !done {
            self.0.not_demangled.fetch_add(1, Relaxed);
        }
    }

    /// How many names were left as they are since this was asked last, because they would have been too much work.
    pub fn take_not_demangled(&self) -> u64 {
        self.0.not_demangled.swap(0, Relaxed)
    }

    /// From now on, until the answer is dropped, the file is read: the time counts.
    pub fn reading(&self) -> Reading<'_> {
        if self.0.readers.fetch_add(1, Relaxed) == 0 {
            self.0.reads_since.store(now(), Relaxed);
        }
        Reading(self)
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// Where the file was read for too long, all in all.
    pub(crate) fn check_time(&self) -> Result<(), Exceeded> {
        if let Some(over @ Exceeded::Time(_)) = self.exceeded() {
            return Err(over);
        }
        let mut read_for = self.0.read_for.load(Relaxed);
        if self.0.readers.load(Relaxed) > 0 {
            read_for += now().saturating_sub(self.0.reads_since.load(Relaxed));
        }
        if Duration::from_nanos(read_for) > self.limits().time {
            return Err(self.exceed(Exceeded::Time(self.limits().time)));
        }
        Ok(())
    }
}

/// Somebody reads the file.
pub struct Reading<'a>(&'a Budget);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let account = &self.0.0;
        if account.readers.fetch_sub(1, Relaxed) == 1 {
            let took = now().saturating_sub(account.reads_since.load(Relaxed));
            account.read_for.fetch_add(took, Relaxed);
        }
    }
}

/// Nanoseconds from some moment on.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_named() {
        let budget = Budget::with(FileLimits {
            symbols: 4 << 20,
            ..FILE_LIMITS
        });
        budget.take(Cost::Symbols, 4 << 20).unwrap();
        let error = budget.take(Cost::Symbols, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its symbol table is larger than 96 MiB, which is the most that is read"
        );
        assert_eq!(budget.exceeded(), Some(error));
        // However much is asked for, it does not begin anew.
        for amount in [u64::MAX, u64::MAX >> 1, 1 << 63, 1] {
            assert!(budget.take(Cost::Symbols, amount).is_err());
        }
        assert!(Budget::default().take(Cost::Names, u64::MAX).is_err());
        // What one needs is none of another's.
        budget.take(Cost::Names, 1).unwrap();
        budget.take(Cost::Memory, 10).unwrap();
        budget.give_back(u64::MAX);
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(100), "100 bytes");
    }

    #[test]
    fn only_time_of_reading_counts() {
        let budget = Budget::with(FileLimits {
            time: Duration::from_millis(20),
            ..FILE_LIMITS
        });
        std::thread::sleep(Duration::from_millis(30));
        budget.check_time().unwrap();
        {
            let _outer = budget.reading();
            let _inner = budget.reading();
            budget.check_time().unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
        let error = budget.check_time().unwrap_err();
        assert!(
            error.to_string().contains("longer than 0.02 seconds"),
            "{error}"
        );
        assert_eq!(budget.left_for_demangling(), 0);
    }

    #[test]
    fn memory_is_a_part_of_what_there_is() {
        assert!(Budget::default().limits().memory <= FILE_LIMITS.memory);
        assert!(Budget::default().limits().memory > 1 << 20);
    }
}

//! Rust: panics that are caught, through calls with destructors, in threads; `Err` results.
use std::{
    hint::black_box,
    io::{BufRead as _, Write as _},
    panic::catch_unwind,
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

static LEAVES: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicU64 = AtomicU64::new(0);
static OUTER: AtomicU64 = AtomicU64::new(0);

struct Guard<'a>(&'a AtomicU64);
impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(leaf(2), Relaxed);
    }
}

#[inline(never)]
fn leaf(i: u64) -> u64 {
    LEAVES.fetch_add(1, Relaxed);
    black_box(i) * 3 + 1
}

#[inline(never)]
fn panics(i: u64) -> u64 {
    PANICS.fetch_add(1, Relaxed);
    if i % 3 == 0 {
        PANICKED.fetch_add(1, Relaxed);
        panic!("order {i}");
    }
    leaf(i) + 1
}

#[inline(never)]
fn outer(i: u64, sum: &AtomicU64) -> u64 {
    OUTER.fetch_add(1, Relaxed);
    let _guard = Guard(sum);
    panics(i) + 1
}

fn part(from: u64) -> u64 {
    let sum = AtomicU64::new(0);
    for i in (from..300).step_by(2) {
        let got = catch_unwind(std::panic::AssertUnwindSafe(|| outer(i, &sum))).unwrap_or(7);
        sum.fetch_add(got, Relaxed);
    }
    sum.load(Relaxed)
}

fn child() -> i32 {
    let sum = AtomicU64::new(0);
    let mut right = 0;
    for i in 1..9 {
        let got = catch_unwind(std::panic::AssertUnwindSafe(|| outer(i, &sum))).unwrap_or(7);
        sum.fetch_add(got, Relaxed);
        right += 7 + if i % 3 == 0 { 7 } else { i * 3 + 3 };
    }
    if sum.load(Relaxed) == right { 77 } else { 78 }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    if std::env::args().nth(1).as_deref() == Some("child") {
        std::process::exit(child());
    }
    println!("ready {}", std::process::id());
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        for counter in [&LEAVES, &PANICS, &PANICKED, &OUTER] {
            counter.store(0, Relaxed);
        }
        let threads: Vec<_> = (0..2).map(|from| std::thread::spawn(move || part(from))).collect();
        let mut wrong = 0;
        let storm = command.starts_with('s');
        if storm {
            let me = std::env::current_exe().unwrap();
            for _ in 0..12 {
                let status = Command::new(&me).arg("child").status().unwrap();
                wrong += u64::from(status.code() != Some(77));
            }
        }
        let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let (leaves, panics) = (LEAVES.load(Relaxed), PANICS.load(Relaxed));
        let (panicked, outer) = (PANICKED.load(Relaxed), OUTER.load(Relaxed));
        let children = if storm { 12 * 30 } else { 0 };
        println!(
            "{{\"sum\":{sum},\"calls\":{{\"panics::leaf\":{leaves},\"panics::panics\":{panics},\"panics::outer\":{outer}}},\
             \"failed\":{{\"panics::panics\":{panicked},\"panics::outer\":{panicked}}},\
             \"parents\":{{\"panics::panics\":{{\"panics::outer\":{panics}}}}},\"wrong\":{wrong},\"children\":{children}}}"
        );
        std::io::stdout().flush().unwrap();
    }
    std::process::exit(47);
}

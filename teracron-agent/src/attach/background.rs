//! Attaching and detaching in threads: the kernel takes 2 to 40 ms for a link, and whoever reads records must not wait
//! for it.
//!
//! **Invariant**: the program does not end while a thread does either. One that the process's end cuts off while it
//! takes a breakpoint out is refused the target's memory; the kernel then keeps its bookkeeping of the breakpoint
//! until the next boot ("failed to unregister, leaking uprobe" in its log).

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
};

/// How many are at it.
static AT_WORK: Mutex<usize> = Mutex::new(0);
static DONE: Condvar = Condvar::new();

/// As long as it lives the program does not end.
pub struct AtWork(());

impl AtWork {
    /// Begins.
    pub fn begin() -> Self {
        *at_work() += 1;
        Self(())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        *at_work() -= 1;
        DONE.notify_all();
    }
}

/// Does it in a thread of this name. Where the system gives none, the work is dropped, and with it the links that it
/// holds: that detaches, too, here and now.
pub fn detaching(name: &str, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let begun = AtWork::begin();
    let work = move || {
        work();
        drop(begun);
    };
    Builder::new().name(name.to_owned()).spawn(work).ok()
}

/// Waits until nobody attaches or detaches any more.
pub fn detached() {
    let mut count = at_work();
    while *count != 0 {
        count = DONE.wait(count).unwrap_or_else(PoisonError::into_inner);
    }
}

fn at_work() -> MutexGuard<'static, usize> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    #[test]
    fn the_end_waits_for_what_is_under_way() {
        let (go, wait) = mpsc::channel::<()>();
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        detaching("teracron-test", move || {
            let _ = wait.recv();
            // Whoever ends may have begun another.
            detaching("teracron-test", move || told.store(true, Ordering::SeqCst));
        });
        let waiting = std::thread::spawn(detached);
        assert!(!waiting.is_finished());
        go.send(()).unwrap();
        waiting.join().unwrap();
        assert!(done.load(Ordering::SeqCst));
    }
}

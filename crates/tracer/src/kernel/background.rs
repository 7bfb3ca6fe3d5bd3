//! Attaching and detaching in threads: the kernel takes 2 to 40 ms for a link, and whoever reads records must not wait
//! for it.
//!
//! **Invariant**: the program does not end while a thread does either. One that the process's end cuts off while it
//! takes a breakpoint out is refused the target's memory; the kernel then keeps its bookkeeping of the breakpoint
//! until the next boot ("failed to unregister, leaking uprobe" in its log).

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

/// Who is at it.
struct Work {
    count: usize,
    /// The program ends: nobody begins any more.
    over: bool,
}

static WORK: Mutex<Work> = Mutex::new(Work {
    count: 0,
    over: false,
});
static DONE: Condvar = Condvar::new();
/// The run ends: what has not been attached is not wanted any more.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// As long as it lives the program does not end.
pub(super) struct AtWork(());

impl AtWork {
    /// Begins. In a thread that comes too late it does not return: the program is ending.
    pub(super) fn begin() -> Self {
        let mut work = locked();
        while work.over {
            work = DONE.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        work.count += 1;
        Self(())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        locked().count -= 1;
        DONE.notify_all();
    }
}

/// Nothing more is to be attached.
pub fn stop_attaching() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// Whether that was said.
pub fn is_stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Does it in a thread of this name. Where the system gives none, the work is dropped, and with it the links that it
/// holds: that detaches, too, here and now.
pub(super) fn detaching(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Option<JoinHandle<()>> {
    let begun = AtWork::begin();
    let work = move || {
        work();
        drop(begun);
    };
    Builder::new().name(name.to_owned()).spawn(work).ok()
}

/// Waits until nobody attaches or detaches any more; from then on nobody begins to.
pub fn detached() {
    wait().over = true;
}

fn wait() -> MutexGuard<'static, Work> {
    let mut work = locked();
    while work.count != 0 {
        work = DONE.wait(work).unwrap_or_else(PoisonError::into_inner);
    }
    work
}

fn locked() -> MutexGuard<'static, Work> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn the_end_waits_for_what_is_under_way() {
        let (go, may_end) = mpsc::channel::<()>();
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        detaching("teracron-test", move || {
            let _ = may_end.recv();
            // Whoever ends may have begun another.
            detaching("teracron-test", move || told.store(true, Ordering::SeqCst));
        });
        let waiting = std::thread::spawn(|| drop(wait()));
        assert!(!waiting.is_finished());
        go.send(()).unwrap();
        waiting.join().unwrap();
        assert!(done.load(Ordering::SeqCst));
    }
}

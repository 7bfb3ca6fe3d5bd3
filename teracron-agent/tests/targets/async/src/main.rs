//! Async calls on tokio's runtime. Each call is written down as it ends: what it was, how often it was
//! polled, how it ended, and by which other call it was awaited.
use std::{
    fmt::Write as _,
    future::Future,
    hint::black_box,
    io::Read as _,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

static LOG: Mutex<String> = Mutex::new(String::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub enum PaymentError {
    Declined,
    Limit(u64),
}

/// Optimised, a future that is awaited in one place is polled in its caller's code; not a boxed one.
#[cfg(feature = "boxed")]
type Held<F> = Pin<Box<dyn Future<Output = <F as Future>::Output> + Send>>;
#[cfg(not(feature = "boxed"))]
type Held<F> = F;

#[cfg(feature = "boxed")]
fn hold<F: Future + Send + 'static>(future: F) -> Held<F> {
    Box::pin(future)
}
#[cfg(not(feature = "boxed"))]
fn hold<F: Future + Send + 'static>(future: F) -> Held<F> {
    future
}

/// A call that is watched: it counts its polls and writes down how it ended.
struct Watched<F> {
    future: F,
    id: u64,
    parent: u64,
    name: &'static str,
    polls: u32,
    over: bool,
}

fn new_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn watch<F: Future + Send + 'static>(
    name: &'static str,
    parent: u64,
    id: u64,
    future: F,
) -> Watched<Held<F>> {
    Watched {
        future: hold(future),
        id,
        parent,
        name,
        polls: 0,
        over: false,
    }
}

impl<F> Watched<F> {
    fn log(&self, end: &str) {
        let Self {
            id,
            parent,
            name,
            polls,
            ..
        } = self;
        writeln!(
            LOG.lock().unwrap(),
            "call {id} {parent} {name} {polls} {end}"
        )
        .unwrap();
    }
}

/// How a call's result reads in the log.
trait Outcome {
    fn outcome(&self) -> String;
}
impl Outcome for u64 {
    fn outcome(&self) -> String {
        "succeeded".to_owned()
    }
}
impl Outcome for [u64; 5] {
    fn outcome(&self) -> String {
        "succeeded".to_owned()
    }
}
impl Outcome for () {
    fn outcome(&self) -> String {
        "succeeded".to_owned()
    }
}
impl Outcome for Result<u64, PaymentError> {
    fn outcome(&self) -> String {
        match self {
            Ok(_) => "succeeded".to_owned(),
            Err(PaymentError::Declined) => "failed PaymentError::Declined".to_owned(),
            Err(PaymentError::Limit(_)) => "failed PaymentError::Limit".to_owned(),
        }
    }
}

impl<F: Future> Future for Watched<F>
where
    F::Output: Outcome,
{
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the inner future is not moved.
        let this = unsafe { self.get_unchecked_mut() };
        this.polls += 1;
        this.over = true; // a panic leaves it so
        let polled = unsafe { Pin::new_unchecked(&mut this.future) }.poll(context);
        match &polled {
            Poll::Ready(value) => this.log(&value.outcome()),
            Poll::Pending => this.over = false,
        }
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.log("failed panic");
        } else if !self.over && self.polls > 0 {
            self.log("failed cancelled");
        }
    }
}

/// Waits for the given number of polls.
struct Yields(u32);
impl Future for Yields {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[inline(never)]
pub fn validate(order: u64) -> u64 {
    black_box(order) + 1
}

pub async fn charge(id: u64, order: u64) -> Result<u64, PaymentError> {
    let text = black_box(format!("order {order}"));
    Yields((order % 4) as u32).await;
    black_box((id, validate(order)));
    match order % 5 {
        3 => Err(PaymentError::Declined),
        4 => Err(PaymentError::Limit(text.len() as u64)),
        _ => Ok(text.len() as u64),
    }
}

pub async fn store<T: AsRef<str>>(value: T, times: u32) -> u64 {
    for _ in 0..times {
        Yields(1).await;
        black_box(value.as_ref().len());
    }
    value.as_ref().len() as u64
}

/// A large result, which is returned through memory.
pub async fn large(order: u64) -> [u64; 5] {
    Yields(1).await;
    black_box([order; 5])
}

pub async fn never(order: u64) -> u64 {
    let kept = black_box(vec![order; 3]);
    std::future::pending::<()>().await;
    kept[0]
}

pub async fn explode(order: u64) -> u64 {
    Yields(2).await;
    if black_box(order) < u64::MAX {
        panic!("order {order} explodes");
    }
    order
}

pub async fn checkout(id: u64, order: u64) -> u64 {
    let mut sum = black_box(validate(order));
    let a = new_id();
    if let Ok(value) = watch("charge", id, a, charge(a, order)).await {
        sum += value;
    }
    let (b, c) = (new_id(), new_id());
    let (one, two) = tokio::join!(
        watch("store", id, b, store("borrowed", (order % 3) as u32)),
        watch("store", id, c, store(format!("owned {order}"), 2)),
    );
    sum += one + two;
    let d = new_id();
    sum += watch("large", id, d, large(order)).await[4];
    let e = new_id();
    let f = new_id();
    tokio::select! {
        biased;
        value = watch("never", id, e, never(order)) => sum += value,
        value = watch("store", id, f, store("winner", 1)) => sum += value,
    }
    let g = new_id();
    if tokio::time::timeout(
        Duration::from_millis(1),
        watch("never", id, g, never(order)),
    )
    .await
    .is_err()
    {
        sum += 1;
    }
    sum
}

pub async fn task(id: u64, order: u64) -> u64 {
    let a = new_id();
    watch("checkout", id, a, checkout(a, order)).await
}

pub async fn faulty(id: u64, order: u64) -> u64 {
    let a = new_id();
    watch("explode", id, a, explode(order)).await
}

/// Nothing is to be done when it is dropped.
pub async fn idle(order: u64) -> u64 {
    std::future::pending::<()>().await;
    order
}

/// Ready at once.
pub async fn short(order: u64) -> u64 {
    black_box(order) + 1
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let workers: usize = arguments.next().map_or(4, |text| text.parse().unwrap());
    let orders: u64 = arguments.next().map_or(40, |text| text.parse().unwrap());
    std::panic::set_hook(Box::new(|_| ()));
    println!("ready {}", std::process::id());
    let mut word = [0; 3];
    std::io::stdin().read_exact(&mut word).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        if orders == 0 {
            // Cancelled, by no code at all.
            let _ = tokio::time::timeout(Duration::from_millis(1), hold(idle(1))).await;
            // Waits when the process ends.
            let waits = watch("never", 0, new_id(), never(1));
            let mut waits = std::mem::ManuallyDrop::new(Box::pin(waits));
            tokio::select! {
                biased;
                _ = waits.as_mut() => (),
                _ = watch("store", 0, new_id(), store("x", 3)) => (),
            }
            return;
        }
        let mut tasks = Vec::new();
        for order in 0..orders {
            let id = new_id();
            if order % 10 == 9 {
                tasks.push(tokio::spawn(watch("faulty", 0, id, faulty(id, order))));
            } else {
                tasks.push(tokio::spawn(watch("task", 0, id, task(id, order))));
            }
        }
        for task in tasks {
            let _ = task.await;
        }
        // A task that is aborted while it waits.
        let id = new_id();
        let aborted = tokio::spawn(watch("never", 0, id, never(7)));
        while !aborted.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            aborted.abort();
        }
        let _ = aborted.await;
        for order in 0..10 {
            hold(short(order)).await;
        }
    });
    print!("{}", LOG.lock().unwrap());
    println!("done");
    let _ = std::io::stdin().read(&mut word);
}

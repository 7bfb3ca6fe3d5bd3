//! Async calls and nothing else: in each round one that is ready at once, and one that waits once.
use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

struct Once(bool);
impl Future for Once {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn ready(x: u64) -> u64 {
    black_box(x) + 1
}

async fn waits(x: u64) -> u64 {
    Once(false).await;
    black_box(x) + 1
}

#[inline(never)]
fn boxed(x: u64, wait: bool) -> Pin<Box<dyn Future<Output = u64>>> {
    if wait { Box::pin(waits(x)) } else { Box::pin(ready(x)) }
}

fn run(mut future: Pin<Box<dyn Future<Output = u64>>>) -> u64 {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = black_box(future.as_mut()).poll(&mut context) {
            return value;
        }
    }
}

fn main() {
    const CALLS: u32 = 20_000;
    let mut x = 0;
    loop {
        let start = Instant::now();
        for _ in 0..CALLS {
            x = run(boxed(x, false));
            x = run(boxed(x, true));
        }
        println!("{}", start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
}

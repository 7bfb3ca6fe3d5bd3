//! An async function that is awaited in one place only: with optimisation it has no poll of its own.
use std::{
    future::Future,
    hint::black_box,
    io::{BufRead as _, Write as _},
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Waits once.
struct Once(bool);

impl Future for Once {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

async fn leaf(n: u64) -> u64 {
    Once(false).await;
    black_box(n) + 1
}

#[inline(never)]
async fn request(n: u64) -> u64 {
    leaf(n).await * 2
}

fn main() {
    println!("ready {}", std::process::id());
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut sum = 0;
    for n in 0..100 {
        let mut future = pin!(request(black_box(n)));
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                sum += value;
                break;
            }
        }
    }
    println!("{sum}\ndone");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

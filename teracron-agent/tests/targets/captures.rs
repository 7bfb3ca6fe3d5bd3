//! Captures and results in Rust: what captures.c is for C.
use std::{fmt::Write as _, hint::black_box, io::Read as _};

#[derive(Debug)]
pub enum PaymentError {
    Declined,
    Limit(u64),
    Other(String),
}
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Kind {
    Small,
    Large,
}
pub struct Customer {
    pub before: String,
    pub id: u32,
    pub name: String,
}
pub struct Order {
    pub before: [u8; 12],
    pub id: u64,
    pub customer: Box<Customer>,
    pub tags: Vec<u8>,
    pub note: Option<String>,
    pub kind: Kind,
    pub pair: (i32, u8),
    pub after: [u8; 12],
}

#[inline(never)]
pub fn charge(order: &Order, amount: i64, who: &str, maybe: Option<u32>, text: Option<&str>) -> Result<u64, PaymentError> {
    black_box((order, amount, who, maybe, text));
    match amount {
        ..0 => Err(PaymentError::Declined),
        1001.. => Err(PaymentError::Limit(amount as u64)),
        7 => Err(PaymentError::Other("seven".into())),
        _ => Ok(amount as u64 * 2),
    }
}
#[inline(never)]
pub fn parse(text: &str) -> Result<i32, std::num::ParseIntError> {
    black_box(text).parse()
}
#[inline(never)]
pub fn message(k: u32) -> Result<u32, &'static str> {
    if black_box(k) % 3 == 0 { Err("divisible") } else { Ok(k) }
}
#[inline(never)]
pub fn owned(text: String) -> Result<String, String> {
    if black_box(&text).len() > 3 { Err(text) } else { Ok(text) }
}
#[inline(never)]
pub fn boxed(k: u32) -> Result<u8, Box<dyn std::error::Error>> {
    if black_box(k) % 2 == 0 { Err("even".into()) } else { Ok(3) }
}
#[inline(never)]
pub fn option(k: u32) -> Option<u32> {
    if black_box(k) % 2 == 0 { None } else { Some(k) }
}
#[inline(never)]
pub fn kind(k: u32) -> Result<Kind, Kind> {
    if black_box(k) % 2 == 0 { Err(Kind::Large) } else { Ok(Kind::Small) }
}
#[inline(never)]
pub fn unit(k: u32) -> Result<(), PaymentError> {
    if black_box(k) % 2 == 0 { Err(PaymentError::Limit(5)) } else { Ok(()) }
}
#[inline(never)]
pub fn panics(k: u32) -> u32 {
    if black_box(k) % 2 == 0 { panic!("panicked with {k}") }
    k
}

fn error(kind: &str) -> String {
    format!("\"status\":\"failed {kind}\"")
}

fn main() {
    let mut order = Order {
        before: *b"CANARYCANARY",
        id: 0,
        customer: Box::new(Customer { before: "CANARYCANARY".into(), id: 5, name: "Grace".into() }),
        tags: vec![1, 2, 3, 4],
        note: None,
        kind: Kind::Large,
        pair: (-3, 9),
        after: *b"CANARYCANARY",
    };
    std::panic::set_hook(Box::new(|_| {}));
    println!("ready {}", std::process::id());
    std::io::stdin().read_exact(&mut [0; 3]).unwrap();
    let mut out = String::new();
    let good = "\"status\":\"succeeded\"";
    for i in 0..24u32 {
        let amount = [5, -1, 2000, 7][i as usize % 4];
        order.id = i.into();
        order.note = (i % 2 == 1).then(|| format!("note {i}"));
        let who = ["me", "somebody else"][i as usize % 2];
        let maybe = (i % 3 == 0).then_some(i);
        let text = (i % 5 == 0).then_some(who);
        let result = black_box(charge(&order, amount, who, maybe, text));
        let (status, ret) = match &result {
            Ok(_) => (good.to_owned(), "Ok"),
            Err(PaymentError::Declined) => (error("PaymentError::Declined"), "Err"),
            Err(PaymentError::Limit(_)) => (error("PaymentError::Limit"), "Err"),
            Err(PaymentError::Other(_)) => (error("PaymentError::Other"), "Err"),
        };
        let maybe = maybe.map_or("\"null\"".into(), |n| n.to_string());
        writeln!(out, "{{\"call\":\"charge\",\"order.id\":{i},\"order.customer.id\":5,\"order.customer.name\":\"Grace\",\"order.tags\":4,\"order.note\":\"{}\",\"order.kind\":\"Large\",\"order.pair.0\":-3,\"order.pair.1\":9,\"amount\":{amount},\"who\":\"{who}\",\"maybe\":{maybe},\"text\":\"{}\",\"ret\":\"{ret}\",{status}}}",
            order.note.as_deref().unwrap_or("null"), text.unwrap_or("null")).unwrap();
        let text = ["12", "zz"][i as usize % 2];
        let status = if black_box(parse(text)).is_ok() { good.to_owned() } else { error("ParseIntError") };
        writeln!(out, "{{\"call\":\"parse\",\"text\":\"{text}\",{status}}}").unwrap();
        let status = match black_box(message(i)) { Ok(_) => good.to_owned(), Err(text) => error(&format!("&str|{text}")) };
        writeln!(out, "{{\"call\":\"message\",\"k\":{i},{status}}}").unwrap();
        let text = ["ab", "abcdef"][i as usize % 2];
        let status = match black_box(owned(text.to_owned())) { Ok(_) => good.to_owned(), Err(text) => error(&format!("String|{text}")) };
        writeln!(out, "{{\"call\":\"owned\",\"text\":\"{text}\",{status}}}").unwrap();
        let status = if black_box(boxed(i)).is_ok() { good.to_owned() } else { error("alloc::boxed::Box<dyn core::error::Error, alloc::alloc::Global>") };
        writeln!(out, "{{\"call\":\"boxed\",{status}}}").unwrap();
        let (ret, status) = match black_box(option(i)) { Some(n) => (n.to_string(), good.to_owned()), None => ("\"null\"".into(), error("returned nothing")) };
        writeln!(out, "{{\"call\":\"option\",\"ret\":{ret},{status}}}").unwrap();
        let status = if black_box(kind(i)).is_ok() { good.to_owned() } else { error("Kind::Large") };
        writeln!(out, "{{\"call\":\"kind\",{status}}}").unwrap();
        let status = if black_box(unit(i)).is_ok() { good.to_owned() } else { error("PaymentError::Limit") };
        writeln!(out, "{{\"call\":\"unit\",{status}}}").unwrap();
        let status = if std::panic::catch_unwind(|| black_box(panics(i))).is_ok() { good.to_owned() } else { error(&format!("panic|panicked with {i}")) };
        writeln!(out, "{{\"call\":\"panics\",\"k\":{i},{status}}}").unwrap();
    }
    print!("{out}");
    println!("done");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

//! From a kernel record to a sealed envelope, on one core: spans a second, and bytes on the wire.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use model::ProbeName;
use pipeline::scrub::ScrubSettings;
use pipeline::{batch::Spans, scrub::Scrubber};
use planner::probe::ProbeTable;
use teracron_agent::delivering::Packed;
use teracron_common::{RecordKind, SpanRecord};
use tracer::{assemble::Assembler, decode, process::Layouts};
use wire::{
    Span,
    api_key::{decode, parse_public_key},
    seal::Sealer,
};

const SECONDS: Duration = Duration::from_secs(2);

/// Records as the kernel side writes them: one in 50 with an exception's type and text.
fn records() -> Vec<Vec<u8>> {
    (0..1000u64)
        .map(|number| {
            let fails = number % 50 == 0;
            let (type_name, message) = if fails {
                (
                    &b"N4shop12CardDeclinedE"[..],
                    &b"card of order 17 was declined"[..],
                )
            } else {
                (&b""[..], &b""[..])
            };
            let record = SpanRecord {
                kind: if fails {
                    RecordKind::SpanWithText as u8
                } else {
                    RecordKind::Span as u8
                },
                end: u8::from(fails),
                detail: 0,
                future: 0,
                probe: teracron_common::ProbeId((number % 4) as u32),
                tgid: std::process::id(),
                tid: std::process::id(),
                start_ns: 1_000_000_000 + number * 1_000_000,
                end_ns: 1_000_412_345 + number * 1_000_000,
                trace_id: [0x0123_4567_89ab_cdef, number],
                span_id: [0xfedc_ba98_7654_3210, number],
                parent_id: if number % 4 == 0 { [0, 0] } else { [7, number] },
                type_len: type_name.len() as u16,
                message_len: message.len() as u16,
                rss_pages: 45_000,
                rss_delta: (number % 3) as i32,
                page_faults: (number % 5) as u32,
            };
            // SAFETY: plain data without padding.
            let bytes = unsafe {
                std::slice::from_raw_parts(
                    std::ptr::from_ref(&record).cast::<u8>(),
                    SpanRecord::SIZE,
                )
            };
            [bytes, type_name, message].concat()
        })
        .collect()
}

/// Prints one line `NAME VALUE` a figure.
pub(crate) fn pack() {
    let decoded = decode(&super::api_key()).unwrap();
    let sealer = Sealer::new(parse_public_key(&decoded.public_key).unwrap());
    let table = ProbeTable::of_names(
        [
            "handle_request",
            "create_order",
            "reserve_stock",
            "charge_card",
        ]
        .map(|name| ProbeName {
            workflow: "payment".into(),
            operation: format!("shop::{name}").into(),
        })
        .to_vec(),
    );
    let records = records();
    let mut assembler = Assembler::default();
    assembler.clock.update();
    let layouts = Layouts::default();
    let spans: Vec<Span> = records
        .iter()
        .map(|record| {
            let raw = decode::span(record).unwrap();
            let span = assembler.span(&raw, &table, &layouts).unwrap();
            span.to_wire()
        })
        .collect();
    across(&spans);
    for batch in [100, 1000] {
        let mut assembler = Assembler::default();
        let layouts = Layouts::default();
        assembler.clock.update();
        assembler.page_size = Some(4096);
        let mut scrubber = Scrubber::new(&ScrubSettings::default()).unwrap();
        let mut spans = Spans::new(&decoded.slug, batch, Duration::from_secs(3600), false);
        let (mut count, mut bytes) = (0u64, 0u64);
        let began = Instant::now();
        while began.elapsed() < SECONDS {
            for record in &records {
                let raw = decode::span(black_box(record)).unwrap();
                let span = assembler.span(&raw, &table, &layouts).unwrap();
                let mut span = span.to_wire();
                scrubber.scrub(&mut span);
                count += 1;
                for batch in spans.push(&span, began) {
                    bytes += black_box(sealer.seal(batch.plaintext).unwrap()).len() as u64;
                }
            }
        }
        let rate = count as f64 / began.elapsed().as_secs_f64();
        println!("sealed_per_second_{batch} {rate:.0}");
        println!("bytes_per_span_{batch} {:.1}", bytes as f64 / count as f64);
    }
}

/// What the way between the two processes costs: spans a second on the agent's side, and on that of the process that
/// delivers.
fn across(spans: &[Span]) {
    let began = Instant::now();
    let (mut count, mut chunks) = (0u64, Vec::new());
    while began.elapsed() < SECONDS / 4 {
        count += spans.len() as u64;
        let packed = Packed::new(spans.to_vec());
        chunks.push(black_box(postcard::to_stdvec(&packed).unwrap()));
    }
    println!(
        "packed_per_second {:.0}",
        count as f64 / began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    for chunk in &chunks {
        let packed: Packed = postcard::from_bytes(chunk).unwrap();
        assert_eq!(black_box(packed.unpack().unwrap()).len(), spans.len());
    }
    println!(
        "unpacked_per_second {:.0}",
        count as f64 / began.elapsed().as_secs_f64()
    );
}

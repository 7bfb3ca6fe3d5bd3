//! What an agent answers, one type for who writes it and who reads it.
//!
//! Agent and asker may be of different versions: what an older agent does not say is empty, what a newer one says beside
//! is passed over.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Kernel, Traced, Wire};
use model::{ProcessIdentity, totals::KindTotals};

/// Version of this type; it grows when a field changes its meaning, not when one is added.
pub(super) const VERSION: u32 = 1;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// Version of this type: `VERSION`; 0 of agents that did not say.
    pub report: u32,
    /// Process id.
    pub agent: u32,
    /// Version of the agent.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Processes that are alive.
    pub processes: Vec<u32>,
    /// Who they are.
    pub targets: Vec<Arc<ProcessIdentity>>,
    /// Functions that are probed.
    pub functions: u64,
    /// Spans read.
    pub spans: u64,
    /// Counts of the kernel side.
    pub kernel: Kernel,
    /// Processes that a signal killed, but for SIGTERM, SIGINT and SIGHUP.
    pub killed: u64,
    /// Breakpoints that targets have removed: calls there are not seen.
    pub removed_breakpoints: u64,
    /// Calls that were counted where functions were inlined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inlined: Vec<Inlined>,
    /// What became of the spans, by where they go: received = pending + shipped + dropped.
    pub outputs: BTreeMap<String, KindReport>,
    /// The way to the service; `None`: there is none, everything stays here.
    pub wire: Option<WireReport>,
}

/// Calls of a function at the places where it was inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inlined {
    /// The probe's workflow.
    pub workflow: String,
    /// The function.
    pub operation: String,
    /// Calls so far.
    pub calls: u64,
}

/// The way to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WireReport {
    /// Name of the project.
    pub project: String,
    /// Host and port.
    pub domain: String,
    /// What became of everything.
    pub totals: TotalsReport,
    /// What waits.
    pub spool: SpoolReport,
    /// How the service is doing.
    pub service: ServiceReport,
    /// The process that delivers.
    pub delivering: DeliveringReport,
}

/// The process that delivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveringReport {
    /// Its id; `None`: none runs at present.
    pub process: Option<u32>,
    /// How many ended that should not have: what was in their memory is lost.
    pub ended: u64,
    /// How the last of these ended, as the rest of a sentence.
    pub why: Option<String>,
}

/// What became of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TotalsReport {
    /// Spans.
    pub spans: KindReport,
    /// Memory samples.
    pub samples: KindReport,
    /// Workflow events.
    pub events: KindReport,
    /// Spans that lost their data because the scrubber failed.
    pub scrub_failures: u64,
    /// The user's scrubber does not answer at present.
    pub scrubber_fails: bool,
}

/// What became of one kind: received + left over = pending + spooled + shipped + dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KindReport {
    /// Came in during this run.
    pub received: u64,
    /// Waited in the spool from an earlier run.
    pub left_over: u64,
    /// In memory, not yet encrypted.
    pub pending: u64,
    /// Encrypted, waiting.
    pub spooled: u64,
    /// Taken by the service.
    pub shipped: u64,
    /// Lost, by cause; a newer agent may know more causes.
    pub dropped: BTreeMap<String, u64>,
}

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolReport {
    /// Where; `None`: in memory.
    pub folder: Option<String>,
    /// Sealed batches.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How the service is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceReport {
    /// The last attempts failed, with this reason.
    pub failing: Option<String>,
    /// The last reason why a batch was rejected.
    pub last_rejected: Option<String>,
    /// Batches that were rejected.
    pub rejected_entries: u64,
    /// Requests so far.
    pub requests: u64,
}

impl StatusReport {
    /// Of this process.
    pub(super) fn new(uptime_s: u64, traced: Traced, wire: Option<&Wire>) -> Self {
        let inlined = traced.inlined.into_iter().map(|calls| Inlined {
            workflow: calls.workflow,
            operation: calls.operation,
            calls: calls.calls,
        });
        let outputs = traced.outputs.iter();
        let outputs = outputs.map(|(name, books)| ((*name).to_owned(), books.into()));
        Self {
            report: VERSION,
            agent: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s,
            processes: traced.processes.iter().map(|who| who.pid).collect(),
            targets: traced.processes,
            functions: traced.functions as u64,
            spans: traced.spans,
            kernel: traced.kernel,
            killed: traced.killed,
            removed_breakpoints: traced.removed_breakpoints,
            inlined: inlined.collect(),
            outputs: outputs.collect(),
            wire: wire.map(WireReport::from),
        }
    }
}

impl From<&Wire> for WireReport {
    fn from(wire: &Wire) -> Self {
        let (totals, state) = (wire.ledger.snapshot(), wire.ledger.state());
        let processes = wire.ledger.processes();
        let health = state.health;
        Self {
            project: wire.slug.clone(),
            domain: wire.domain.clone(),
            totals: TotalsReport {
                spans: (&totals.spans).into(),
                samples: (&totals.samples).into(),
                events: (&totals.events).into(),
                scrub_failures: totals.scrub_failures,
                scrubber_fails: totals.scrubber_fails,
            },
            spool: SpoolReport {
                folder: wire
                    .folder
                    .as_ref()
                    .map(|folder| folder.to_string_lossy().into_owned()),
                batches: state.batches,
                bytes: state.bytes,
            },
            delivering: DeliveringReport {
                process: processes.running,
                ended: processes.ended,
                why: processes.why,
            },
            service: ServiceReport {
                failing: health.failing,
                last_rejected: health.last_rejected,
                rejected_entries: health.rejected_entries,
                requests: health.requests,
            },
        }
    }
}

impl From<&KindTotals> for KindReport {
    fn from(totals: &KindTotals) -> Self {
        let causes = model::totals::Cause::ALL.into_iter();
        let dropped = causes.map(|cause| {
            let name = cause.name().replace(' ', "_");
            (name, totals.dropped.of(cause))
        });
        Self {
            received: totals.received,
            left_over: totals.left_over,
            pending: totals.pending,
            spooled: totals.spooled,
            shipped: totals.shipped,
            dropped: dropped.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Namespaces;
    use proptest::{collection, option, prelude::*};

    fn kind() -> impl Strategy<Value = KindReport> {
        let dropped = collection::btree_map("[a-z_]{1,12}", any::<u64>(), 0..9);
        (any::<[u64; 5]>(), dropped).prop_map(|(numbers, dropped)| {
            let [received, left_over, pending, spooled, shipped] = numbers;
            KindReport {
                received,
                left_over,
                pending,
                spooled,
                shipped,
                dropped,
            }
        })
    }

    fn wire() -> impl Strategy<Value = WireReport> {
        let text = || "\\PC{0,20}";
        let totals = ([kind(), kind(), kind()], any::<u64>(), any::<bool>());
        let service = (
            option::of(text()),
            option::of(text()),
            any::<u64>(),
            any::<u64>(),
        );
        let spool = (option::of(text()), any::<u64>(), any::<u64>());
        let delivering = (option::of(any::<u32>()), any::<u64>(), option::of(text()));
        let delivering = delivering.prop_map(|(process, ended, why)| DeliveringReport {
            process,
            ended,
            why,
        });
        (text(), text(), totals, spool, service, delivering).prop_map(
            |(
                project,
                domain,
                (kinds, scrub_failures, scrubber_fails),
                spool,
                service,
                delivering,
            )| {
                let [spans, samples, events] = kinds;
                WireReport {
                    project,
                    domain,
                    totals: TotalsReport {
                        spans,
                        samples,
                        events,
                        scrub_failures,
                        scrubber_fails,
                    },
                    spool: SpoolReport {
                        folder: spool.0,
                        batches: spool.1,
                        bytes: spool.2,
                    },
                    service: ServiceReport {
                        failing: service.0,
                        last_rejected: service.1,
                        rejected_entries: service.2,
                        requests: service.3,
                    },
                    delivering,
                }
            },
        )
    }

    fn who() -> impl Strategy<Value = Arc<ProcessIdentity>> {
        let numbers = (any::<u32>(), any::<u64>(), option::of(any::<[u64; 3]>()));
        let texts = ("\\PC{0,15}", option::of("\\PC{0,30}"));
        let container = option::of("[0-9a-f]{64}");
        (numbers, texts, container).prop_map(|(numbers, (comm, executable), container)| {
            let (pid, start_time, namespaces) = numbers;
            Arc::new(ProcessIdentity {
                pid,
                start_time,
                comm,
                executable,
                container: container.and_then(|id| id.try_into().ok()),
                namespaces: namespaces.map(|[mount, pid, network]| Namespaces {
                    mount,
                    pid,
                    network,
                }),
            })
        })
    }

    fn report() -> impl Strategy<Value = StatusReport> {
        let inlined = ("\\PC{0,9}", "\\PC{0,30}", any::<u64>());
        let inlined = inlined.prop_map(|(workflow, operation, calls)| Inlined {
            workflow,
            operation,
            calls,
        });
        (
            any::<[u32; 2]>(),
            "\\PC{0,9}",
            any::<[u64; 5]>(),
            any::<[u64; 4]>(),
            collection::vec(who(), 0..20),
            collection::vec(inlined, 0..4),
            collection::btree_map("[a-z]{1,9}", kind(), 0..4),
            option::of(wire()),
        )
            .prop_map(
                |(ids, version, counts, kernel, targets, inlined, outputs, wire)| {
                    let [uptime_s, functions, spans, killed, removed_breakpoints] = counts;
                    let [entered, sent, lost, unsampled] = kernel;
                    StatusReport {
                        report: ids[0],
                        agent: ids[1],
                        version,
                        uptime_s,
                        processes: targets.iter().map(|who| who.pid).collect(),
                        targets,
                        functions,
                        spans,
                        kernel: Kernel {
                            entered,
                            sent,
                            lost,
                            unsampled,
                        },
                        killed,
                        removed_breakpoints,
                        inlined,
                        outputs,
                        wire,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(report in report()) {
            let text = serde_json::to_string(&report).unwrap();
            prop_assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), report);
        }

        #[test]
        fn newer_and_older_agents_are_understood(report in report(), missing in 0usize..16) {
            let mut value = serde_json::to_value(&report).unwrap();
            let object = value.as_object_mut().unwrap();
            object.insert("of_tomorrow".to_owned(), serde_json::json!({"a": [1, null]}));
            if let Some(wire) = object.get_mut("wire").and_then(|wire| wire.as_object_mut()) {
                wire.insert("mirrors".to_owned(), 3.into());
            }
            prop_assert_eq!(&serde_json::from_value::<StatusReport>(value.clone()).unwrap(), &report);
            let object = value.as_object_mut().unwrap();
            let key = object.keys().nth(missing % object.len()).unwrap().clone();
            object.remove(&key);
            prop_assert!(serde_json::from_value::<StatusReport>(value).is_ok());
        }

        #[test]
        fn no_answer_is_too_strange(bytes in collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<StatusReport>(&bytes);
        }
    }
}

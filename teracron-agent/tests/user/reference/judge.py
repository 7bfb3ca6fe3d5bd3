"""What the reference client (teracron-sdk 0.6.1) would send: one JSON question a line, one answer a line."""
import base64
import json
import sys
from dataclasses import replace

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from teracron import encoder
from teracron.tracing import events, sampling
from teracron.tracing.span import create_span, finalise_span
from teracron.types import MetricsSnapshot


def span(given):
    started = create_span(
        given["workflow"], given["operation"], given["trace_id"], given["parent_span_id"]
    )
    started = replace(started, span_id=given["span_id"], started_at=given["started_at"])
    return finalise_span(
        started,
        status=given["status"],
        duration_ms=given["duration_ms"],
        error_type=given["error_type"],
        error_message=given["error_message"],
        metadata=given["metadata"],
        captured_params=given["captured_params"],
    )


def traces(question):
    payload = {
        "type": "trace",
        "project_slug": question["slug"],
        "spans": [span(given).to_dict() for given in question["spans"]],
    }
    return json.dumps(payload, separators=(",", ":")).encode("utf-8")


def workflow_events(question):
    """As the reference's decorator builds them; the time is what the span says."""
    all_events = []
    for given in question["spans"]:
        common = {key: given[key] for key in ("workflow", "trace_id", "span_id", "operation")}
        kind = "workflow" if given["parent_span_id"] is None else "step"
        build = lambda what: getattr(events, f"build_{kind}_{what}_event")
        made = [build("started")(**common)]
        times = [given["started_at"]]
        if given["status"] == "succeeded":
            made.append(build("completed")(**common, duration_ms=given["duration_ms"]))
        elif given["status"] == "failed":
            made.append(
                build("failed")(
                    **common,
                    error_type=given["error_type"],
                    error_message=given["error_message"],
                    duration_ms=given["duration_ms"],
                )
            )
        times.append(given["started_at"] + int(given["duration_ms"]))
        for event, time in zip(made, times):
            event["timestamp"] = time
        all_events.extend(made)
    payload = {"type": "events", "project_slug": question["slug"], "events": all_events}
    return json.dumps(payload, separators=(",", ":")).encode("utf-8")


def metrics(question):
    encoder._SDK_VERSION = question["sdk_version"]
    encoder.platform.python_version = lambda: question["runtime_version"]
    return encoder.encode_batch(
        [
            MetricsSnapshot(
                timestamp=given["timestamp"],
                heap_total=given["vms"],
                heap_used=given["uss"],
                rss=given["rss"],
                external=0,
                array_buffers=0,
                cpu_usage=-1.0 if given["cpu"] is None else given["cpu"] / 10_000,
                event_loop_lag_ms=-1.0,
            )
            for given in question["samples"]
        ]
    )


def opened(question):
    envelope = base64.b64decode(question["envelope"])
    key = serialization.load_pem_private_key(question["private_key"].encode(), None)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    aes = AESGCM(key.decrypt(envelope[:512], oaep))
    return aes.decrypt(envelope[512:524], envelope[540:] + envelope[524:540], None)


def kept(question):
    return bytes(
        sampling.should_sample(trace_id, rate) for trace_id, rate in question["traces"]
    )


WHAT = {"traces": traces, "events": workflow_events, "metrics": metrics, "opened": opened, "kept": kept}
for line in sys.stdin:
    question = json.loads(line)
    answer = WHAT[question["what"]](question)
    print(base64.b64encode(answer).decode(), flush=True)

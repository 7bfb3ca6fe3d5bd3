//! A Teracron service over real TLS, with an authority of its own, that answers whatever a test wants.

use super::Agent;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aes_gcm::{Aes256Gcm, KeyInit as _, aead::Aead as _};
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rsa::pkcs8::DecodePrivateKey as _;
use serde_json::Value;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../crates/wire/tests/vectors.json")).unwrap()
});

static PRIVATE_KEY: LazyLock<rsa::PrivateKey> = LazyLock::new(|| {
    let pem = VECTORS["test_private_key_pem"].as_str().unwrap();
    rsa::PrivateKey::from_pkcs8_pem(pem).unwrap()
});

/// The test project's API key.
pub fn api_key() -> &'static str {
    VECTORS["api_keys"][0]["key"].as_str().unwrap()
}

/// Its name.
pub fn slug() -> &'static str {
    VECTORS["api_keys"][0]["slug"].as_str().unwrap()
}

/// Opens an envelope: the AES key and the plaintext.
pub fn open(envelope: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (wrapped, rest) = envelope.split_at_checked(512).ok_or("too short")?;
    let key = PRIVATE_KEY
        .oaep_decrypt::<sha2::Sha256>(wrapped)
        .map_err(|error| error.to_string())?;
    let (iv, rest) = rest.split_at_checked(12).ok_or("too short")?;
    let (tag, body) = rest.split_at_checked(16).ok_or("too short")?;
    let plaintext = Aes256Gcm::new_from_slice(&key)
        .map_err(|error| error.to_string())?
        .decrypt(
            iv.try_into().map_err(|_| "too short")?,
            [body, tag].concat().as_slice(),
        )
        .map_err(|error| error.to_string())?;
    Ok((key, plaintext))
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub version: hyper::Version,
    pub envelope: Vec<u8>,
    /// When its headers had come, and how many requests had come before.
    pub at: Instant,
    pub place: usize,
    /// What was answered.
    pub status: u16,
}

impl Received {
    /// The body's spans.
    pub fn spans(&self) -> Vec<Value> {
        assert_eq!(self.path, "/v1/traces");
        let (_, plaintext) = open(&self.envelope).unwrap();
        let body: Value = serde_json::from_slice(&plaintext).unwrap();
        assert_eq!(body["type"], "trace");
        assert_eq!(body["project_slug"], slug());
        body["spans"].as_array().unwrap().clone()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Before the first byte.
    pub delay: Duration,
    pub manner: Manner,
}

/// How it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Whole,
    /// The body breaks off.
    Half,
    /// The body never ends.
    Open,
    /// Nothing ever comes.
    Never,
    /// The connection ends without a word.
    HangUp,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
            manner: Manner::Whole,
        }
    }

    pub fn manner(manner: Manner) -> Self {
        Self {
            manner,
            ..Self::status(202)
        }
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

#[derive(Default)]
struct Seen {
    requests: Vec<Received>,
    connections: usize,
    began: usize,
}

type Log = Arc<(Mutex<Seen>, Condvar)>;

/// Also after a check has failed while it looked.
fn locked(log: &Log) -> MutexGuard<'_, Seen> {
    log.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running service; it ends, and its port with it, when this is dropped.
pub struct Service {
    pub address: SocketAddr,
    log: Log,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Certificates of the tests' own authority.
struct Authority {
    ca_pem: String,
    certificate: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), "ingest.test".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    Authority {
        ca_pem: ca_certificate.pem(),
        certificate: vec![leaf.der().clone()],
        key: key.serialize_der(),
    }
});

/// The authority's certificate, in a file.
pub fn ca_file() -> PathBuf {
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
        let name = format!("authority-{}.pem", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, &AUTHORITY.ca_pem).unwrap();
        path
    });
    FILE.clone()
}

impl Service {
    /// Takes everything.
    pub fn start() -> Self {
        Self::answering(|_| Answer::status(202))
    }

    /// Answers by a script.
    pub fn answering(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::on(
            0,
            &[&rustls::version::TLS13, &rustls::version::TLS12],
            script,
        )
    }

    /// The same on a port, with some versions of TLS.
    pub fn on(
        port: u16,
        versions: &[&'static rustls::SupportedProtocolVersion],
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                AUTHORITY.certificate.clone(),
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(AUTHORITY.key.clone())),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (seen, script) = (log.clone(), Arc::new(script) as Arc<Script>);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        locked(&seen).connections += 1;
                        let (acceptor, seen, script) =
                            (acceptor.clone(), seen.clone(), script.clone());
                        tokio::spawn(serve(stream, acceptor, seen, script));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            log,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// `localhost:PORT`.
    pub fn domain(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Requests so far.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.log).requests.clone()
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        locked(&self.log).connections
    }

    /// Waits until the requests are as wanted.
    pub fn wait(&self, wanted: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let (seen, changed) = &*self.log;
        let (seen, timeout) = changed
            .wait_timeout_while(
                seen.lock().unwrap_or_else(PoisonError::into_inner),
                Duration::from_secs(60),
                |seen| !wanted(&seen.requests),
            )
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "the service has seen {:?} only",
            seen.requests
                .iter()
                .map(|request| (&request.path, request.status))
                .collect::<Vec<_>>()
        );
        seen.requests.clone()
    }

    /// Waits for so many spans that were taken. They are opened outside the lock: the service goes on.
    pub fn wait_for_spans(&self, count: usize) -> Vec<Value> {
        let (mut spans, mut looked) = (Vec::new(), 0);
        while spans.len() < count {
            let requests = self.wait(|requests| requests.len() > looked);
            for request in &requests[looked..] {
                if request.path == "/v1/traces" && request.status == 202 {
                    spans.extend(request.spans());
                }
            }
            looked = requests.len();
        }
        spans
    }

    /// The agent's flags to send here.
    pub fn flags(&self) -> Vec<String> {
        [
            "--api-key",
            api_key(),
            "--domain",
            &self.domain(),
            "--allow-custom-domain",
            "--ca-file",
            ca_file().to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    acceptor: TlsAcceptor,
    log: Log,
    script: Arc<Script>,
) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| answer(request, log.clone(), script.clone()));
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    log: Log,
    script: Arc<Script>,
) -> Result<Response<Part>, std::io::Error> {
    let at = Instant::now();
    let place = {
        let mut seen = locked(&log);
        seen.began += 1;
        seen.began - 1
    };
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // A client that was killed.
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    assert_eq!(head.method, hyper::Method::POST);
    let mut received = Received {
        path: head.uri.path().to_owned(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        version: head.version,
        envelope: body.to_bytes().to_vec(),
        at,
        place,
        status: 0,
    };
    let answer = script(&received);
    received.status = if matches!(answer.manner, Manner::Whole | Manner::Half | Manner::Open) {
        answer.status
    } else {
        0
    };
    locked(&log).requests.push(received);
    log.1.notify_all();
    tokio::time::sleep(answer.delay).await;
    match answer.manner {
        Manner::Never => std::future::pending().await,
        Manner::HangUp => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        Manner::Whole | Manner::Half | Manner::Open => {}
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response
        .body(Part {
            bytes: Some(Bytes::from(answer.body)),
            breaks: match answer.manner {
                Manner::Half => Some(Duration::from_millis(200)),
                Manner::Open => Some(Duration::from_secs(3600)),
                _ => None,
            }
            .map(|after| Box::pin(tokio::time::sleep(after))),
        })
        .unwrap())
}

/// A body that may break off, after what came before has left.
struct Part {
    bytes: Option<Bytes>,
    breaks: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Part {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(bytes) = self.bytes.take()
            && !bytes.is_empty()
        {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.breaks {
            Some(pause) => pause
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            None => Poll::Ready(None),
        }
    }
}

/// Longer than anything here ever takes.
const IN_TIME: Duration = Duration::from_secs(60);

/// Folders, and the flags that lead there and to a service.
pub struct Place {
    pub folder: tempfile::TempDir,
    flags: Vec<String>,
}

impl Place {
    pub fn new(service: &Service) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut flags = service.flags();
        for (flag, name) in [("--spool-dir", "spool"), ("--run-dir", "run")] {
            flags.push(flag.to_owned());
            flags.push(folder.path().join(name).to_str().unwrap().to_owned());
        }
        Self { folder, flags }
    }

    pub fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let flags = self.flags.iter().map(String::as_str);
        flags.chain(more.iter().copied()).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The project's folder.
    pub fn spool(&self) -> PathBuf {
        self.path("spool").join(slug())
    }

    /// Asks until the status is as wanted, and looks that the books add up each time: there is no event to wait for.
    pub fn until(&self, agent: &Agent, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = agent.status(&self.path("run"));
            for kind in ["spans", "samples", "events"] {
                books(&status, kind);
            }
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < IN_TIME, "{status}");
        }
    }
}

/// Received, left over, pending, spooled, shipped, dropped; they add up.
pub fn books(status: &Value, kind: &str) -> [u64; 6] {
    let totals = &status["wire"]["totals"][kind];
    let number = |name: &str| totals[name].as_u64().unwrap();
    let dropped = totals["dropped"].as_object().unwrap();
    let dropped: u64 = dropped.values().map(|count| count.as_u64().unwrap()).sum();
    let books = ["received", "left_over", "pending", "spooled", "shipped"].map(number);
    assert_eq!(
        books[0] + books[1],
        books[2] + books[3] + books[4] + dropped,
        "{totals}"
    );
    [books[0], books[1], books[2], books[3], books[4], dropped]
}
